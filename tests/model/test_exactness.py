"""Must show 6: the gradient does not depend on how examples are put into micro-batches (float64, 1e-12)."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.bloom import modeling_bloom
from transformers.models.llama import modeling_llama

from lora_kit.data.collate import MicroBatch, flatten, pad
from lora_kit.data.types import Example
from lora_kit.model.adapter_inject import adapter_parameters, add_adapter, load_adapter_tensors
from lora_kit.model.forward import example_nats, sum_nats
from lora_kit.recipe.schema import LoraSpec

TOLERANCE = 1e-12
MARGIN = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Setting:
    """A float64 model with a random adapter (B is not zero), and its gradients per trained token."""

    def __init__(self, model: Any, family: Any) -> None:
        self.collate: Callable[[Sequence[Example]], MicroBatch] = flatten if family.flattened else pad
        self.model = add_adapter(model, LoraSpec(rank=4), family, seed=3)
        generator = torch.Generator().manual_seed(5)
        values = {
            name: torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.1
            for name, p in adapter_parameters(self.model).items()
        }
        load_adapter_tensors(self.model, values)

    def gradients(self, tokens: int) -> dict[str, Tensor]:
        found = {name: p.grad / tokens for name, p in adapter_parameters(self.model).items()}
        self.model.zero_grad()
        return found

    def of_micro_batches(self, groups: Sequence[Sequence[Example]]) -> tuple[float, dict[str, Tensor]]:
        losses = [sum_nats(self.model, self.collate(group)) for group in groups]
        for loss in losses:
            loss.nats.backward()
        tokens = sum(loss.tokens for loss in losses)
        return sum(loss.nats.item() for loss in losses) / tokens, self.gradients(tokens)

    def of_one_padded_batch(self, examples: Sequence[Example]) -> tuple[float, dict[str, Tensor]]:
        nats, tokens = reference_nats(self.model, examples)
        nats.backward()
        return nats.item() / tokens, self.gradients(tokens)


def reference_nats(model: Any, examples: Sequence[Example]) -> tuple[Tensor, int]:
    """One padded batch through the whole model with all logits, as transformers and torch do it."""
    ids, labels, mask = (
        torch.zeros(len(examples), max(len(e.input_ids) for e in examples)).long() for _ in "ilm"
    )
    labels -= 100
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids[row, :length] = torch.tensor(example.input_ids)
        mask[row, :length] = 1
        labels[row, :length] = torch.where(torch.tensor(example.trained), ids[row, :length], -100)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    targets = labels[:, 1:].flatten()
    nats = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets, reduction="sum")
    return nats, int((targets != -100).sum())


def precise_norm(norm: Any, x: Tensor) -> Tensor:
    """RMSNorm in the number type of x."""
    return norm.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon))


class DoubleSoftmax:
    """torch.nn.functional, with a softmax that does not round float64 to float32."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.nn.functional, name)

    def softmax(self, scores: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
        return torch.softmax(scores, dim, torch.promote_types(scores.dtype, dtype))


@pytest.fixture(params=["llama", "gpt_neox", "bloom"])
def base(request: Any, tiny_folder: Any) -> Path:
    return tiny_folder(request.param)


@pytest.fixture
def setting(base: Path, base_of: Any, open_model: Any, monkeypatch: Any) -> Setting:
    # transformers' BLOOM takes its softmax in float32 whatever the model is in, which is noise of 1e-8.
    monkeypatch.setattr(modeling_bloom, "F", DoubleSoftmax())
    # So does its RMSNorm, which ours does not: the reference is given one that keeps float64.
    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", precise_norm)
    return Setting(open_model(base), base_of(base).family)


def farthest(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    assert one.keys() == two.keys()
    return max((one[name] - two[name]).abs().max().item() for name in one)


def partition(examples: list[Example], draw: random.Random) -> list[list[Example]]:
    examples = draw.sample(examples, len(examples))
    cuts = sorted(draw.sample(range(1, len(examples)), draw.randint(0, len(examples) - 1)))
    return [examples[a:b] for a, b in zip([0, *cuts], [*cuts, len(examples)], strict=True)]


@MARGIN
@given(seed=st.integers(0, 2**32))
@pytest.mark.fault("D18", "P5")
def test_any_split_has_the_gradient_of_one_padded_batch(setting: Setting, examples: Any, seed: int) -> None:
    draw = random.Random(seed)
    rows = examples(draw.randint(2, 7), seed)
    expected_loss, expected = setting.of_one_padded_batch(rows)
    assert (
        max(gradient.abs().max().item() for gradient in expected.values()) > 1e-2
    )  # not a comparison of zeros
    for groups in (partition(rows, draw), [[row] for row in rows], [rows]):
        loss, found = setting.of_micro_batches(groups)
        assert loss == pytest.approx(expected_loss, abs=TOLERANCE)
        assert farthest(found, expected) <= TOLERANCE


@pytest.mark.fault("P5")
def test_examples_never_see_each_other(setting: Setting, examples: Any) -> None:
    rows = examples(5, 11)
    before = example_nats(setting.model, setting.collate(rows))
    other = Example(tuple(299 - t for t in rows[2].input_ids), rows[2].trained, "x:1", "0" * 64)
    after = example_nats(setting.model, setting.collate([*rows[:2], other, *rows[3:]]))
    assert before[2] != after[2]
    kept = [0, 1, 3, 4]
    assert torch.allclose(before[kept], after[kept], rtol=0, atol=1e-13)


def test_nats_of_examples_are_the_nats_of_the_batch(setting: Setting, examples: Any) -> None:
    batch = setting.collate(examples(4, 2))
    total = sum_nats(setting.model, batch)
    assert total.tokens == len(batch.targets)
    assert example_nats(setting.model, batch).sum().item() == pytest.approx(total.nats.item(), rel=1e-14)


def test_without_targets_the_loss_is_zero_and_so_is_the_gradient(setting: Setting) -> None:
    silent = Example((5, 6, 7), (False, False, False), "x:1", "0" * 64)
    loss = sum_nats(setting.model, setting.collate([silent]))
    loss.nats.backward()
    assert (loss.nats.item(), loss.tokens) == (0.0, 0)
    assert all(not gradient.any() for gradient in setting.gradients(1).values())


def test_the_base_under_an_adapter_is_the_base(
    setting: Setting, examples: Any, open_model: Any, base: Any
) -> None:
    batch = setting.collate(examples(3, 4))
    with setting.model.disable_adapter():
        assert torch.equal(example_nats(setting.model, batch), example_nats(open_model(base), batch))
