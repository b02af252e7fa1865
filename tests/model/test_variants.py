"""LoRA's variants on every kind of family: the gradient is peft's, what is saved is what was trained."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from lora_kit.data.collate import flatten, pad
from lora_kit.errors import ModelError
from lora_kit.model import fused_llama
from lora_kit.model.adapter_inject import (
    adapter_config,
    adapter_parameters,
    adapter_tensors,
    add_adapter,
    attach_adapter,
    attach_another,
    load_adapter_tensors,
)
from lora_kit.model.base import find_base
from lora_kit.model.forward import sum_nats
from lora_kit.model.load import load_model
from lora_kit.model.lora_start import principal_factors, starts
from lora_kit.model.quantize import dequantized_weights
from lora_kit.model.token_rows import put_rows, row_parameters, token_ids
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec

IDS = torch.arange(7, 27)[None]
PISSA, DORA = LoraSpec(rank=4, alpha=8, init="pissa"), LoraSpec(rank=4, alpha=8, dora=True)
TARGETS = {"llama": "q_proj", "gpt_neox": "query_key_value", "bloom": "dense_4h_to_h"}


class Tiny:
    """A family's tiny base, with adapters of any kind."""

    def __init__(self, folder: Path) -> None:
        self.files = find_base(BaseSpec(model=str(folder)))
        self.family = self.files.family
        self.collate = flatten if self.family.flattened else pad

    def open(self, dtype: str = "float64", method: str = "none") -> Any:
        return load_model(self.files, dtype=dtype, quantization=QuantizationSpec(method=method), device="cpu")

    def adapted(self, spec: LoraSpec, dtype: str = "float64", method: str = "none") -> PeftModel:
        return add_adapter(self.open(dtype, method), spec, self.family, seed=3, files=self.files)

    def trained(self, spec: LoraSpec, dtype: str = "float64", method: str = "none") -> PeftModel:
        """Moved away from where it began."""
        model = self.adapted(spec, dtype, method)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in adapter_parameters(model).values():
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.1)
        return model

    def plain(self, dtype: torch.dtype = torch.float64) -> Any:
        """As transformers itself opens it."""
        return AutoModelForCausalLM.from_pretrained(self.files.folder, dtype=dtype).eval()


@pytest.fixture
def tiny(tiny_any: Path) -> Tiny:
    return Tiny(tiny_any)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits[0]


def gradients(model: Any, losses: list[Tensor]) -> dict[str, Tensor]:
    for loss in losses:
        loss.backward()
    found = {name: p.grad.clone() for name, p in adapter_parameters(model).items()}
    model.zero_grad()
    return found


def close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance)


def test_principal_factors() -> None:
    """The best approximation of its rank, split evenly, and the same whatever sign an SVD has chosen."""
    weight = torch.randn(12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    down, up = principal_factors(weight, 4, 0.5)
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(torch.linalg.svdvals(weight - 0.5 * up @ down)[:5], values[4:9])
    torch.testing.assert_close((down @ down.T).diag(), values[:4] / 0.5)
    torch.testing.assert_close((up.T @ up).diag(), values[:4] / 0.5)
    assert (down.gather(1, down.abs().argmax(1, keepdim=True)) > 0).all()
    with pytest.raises(ModelError, match="10 is more than the 9 singular values of the weight"):
        principal_factors(weight, 10, 0.5)


def test_large_matrices_have_randomised_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the exact ones where singular values decay, and the same in every run."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(90, 90, generator=generator))[0] for _ in "lr")
    weight = left * (0.8 ** torch.arange(90)) @ right
    exact = principal_factors(weight, 4, 1.0)
    monkeypatch.setattr("lora_kit.model.lora_start.EXACT_UP_TO", 50)
    torch.manual_seed(1)
    found, again = (principal_factors(weight, 4, 1.0) for _ in "ab")
    assert torch.equal(found[0], again[0])
    assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(1))  # nothing was drawn
    torch.testing.assert_close(found[1] @ found[0], exact[1] @ exact[0], rtol=0, atol=1e-5)


def test_pissa_begins_where_peft_begins(tiny: Tiny) -> None:
    ours = tiny.adapted(PISSA, "float32")
    name = TARGETS[tiny.family.name]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=[name], init_lora_weights="pissa")
    theirs = get_peft_model(tiny.plain(torch.float32), config)
    layer = next(m for path, m in theirs.named_modules() if path.endswith(name))
    mine = next(m for path, m in ours.named_modules() if path.endswith(name))
    product, wanted = (m.lora_B["default"].weight @ m.lora_A["default"].weight for m in (mine, layer))
    torch.testing.assert_close(product, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        mine.lora_A["default"].weight.abs(), layer.lora_A["default"].weight.abs(), rtol=1e-3, atol=1e-4
    )
    assert len(list(starts(ours))) == len(adapter_parameters(ours)) // 2
    torch.testing.assert_close(logits(ours), logits(tiny.open("float32")), rtol=1e-4, atol=1e-4)


def test_pissa_learns_as_with_the_rest_of_the_weights(tiny: Tiny, examples: Any) -> None:
    """The gradient is that of plain LoRA on W - scaling B0 A0, which is how the paper and peft write it."""
    ours, rows = tiny.trained(PISSA), examples(4, 2)
    rest = tiny.adapted(LoraSpec(rank=4, alpha=8))
    with torch.no_grad():
        for path, start in starts(ours):
            rest.get_submodule(path).base_layer.weight += 2.0 * start.up @ start.down
        for name, parameter in adapter_parameters(rest).items():
            parameter.copy_(adapter_parameters(ours)[name])
    found, expected = (gradients(m, [sum_nats(m, tiny.collate(rows)).nats]) for m in (ours, rest))
    close(found, expected, 1e-10)
    torch.testing.assert_close(logits(ours), logits(rest), rtol=1e-10, atol=1e-10)


def test_pissa_in_bfloat16_and_with_dropout(tiny: Tiny) -> None:
    """Where peft's own forward is left to compute, the first factors are taken away all the same."""
    for dtype, tolerance in (("bfloat16", 0.2), ("float32", 1e-4)):
        model = tiny.adapted(PISSA, dtype)
        torch.testing.assert_close(logits(model), logits(tiny.open(dtype)), rtol=0, atol=tolerance)
    exact = tiny.adapted(LoraSpec(rank=4, alpha=8, dropout=0.5, init="pissa"))
    torch.testing.assert_close(logits(exact), logits(tiny.open()), rtol=0, atol=1e-10)
    assert (logits(exact.train()) - logits(tiny.open())).abs().max() > 0.01  # only A's input is dropped


@pytest.mark.parametrize("stabilized", [False, True])
def test_pissa_is_saved_as_plain_lora(stabilized: bool, tiny: Tiny, tmp_path: Path) -> None:
    """Rank 2R on the untouched base, here and in peft; a checkpoint brings back both halves, bit for bit."""
    spec = LoraSpec(rank=4, alpha=8, init="pissa", rank_stabilized=stabilized)
    ours = tiny.trained(spec)
    config, tensors = adapter_config(ours, str(tiny.files.folder)), adapter_tensors(ours)
    assert (config["r"], config["use_rslora"], config["init_lora_weights"]) == (8, False, True)
    again = attach_adapter(tiny.open(), config, copy.deepcopy(tensors)).eval()
    assert not list(starts(again))
    torch.testing.assert_close(logits(again), logits(ours), rtol=1e-11, atol=1e-11)
    save_file(tensors, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    kept = {key: config[key] for key in ("r", "lora_alpha", "target_modules")}
    LoraConfig(**kept).save_pretrained(tmp_path)
    theirs = PeftModel.from_pretrained(tiny.plain(torch.float32), tmp_path).eval()
    torch.testing.assert_close(logits(theirs), logits(ours).float(), rtol=1e-3, atol=1e-3)
    resumed = tiny.adapted(spec)
    with torch.no_grad():
        for _, start in starts(resumed):
            start.down.zero_()  # as if another machine had found others
    load_adapter_tensors(resumed, tensors)
    assert torch.equal(logits(resumed), logits(ours))
    assert all(torch.equal(t, tensors[name]) for name, t in adapter_tensors(resumed).items())


def test_loftq_begins_with_what_was_lost(tiny: Tiny) -> None:
    """As peft's replace_lora_weights_loftq does it: the principal part of W minus what 4 bits hold."""
    pytest.importorskip("bitsandbytes")
    spec = LoraSpec(rank=4, alpha=8, init="loftq")
    model = tiny.adapted(spec, "float32", "nf4")
    weights, dense = load_file(tiny.files.folder / "model.safetensors"), dequantized_weights(model)
    parameters = adapter_parameters(model)
    assert dense
    for name, held in dense.items():
        lost = weights[f"{name}.weight"] - held()
        left, values, right = torch.linalg.svd(lost, full_matrices=False)
        wanted = left[:, :4] * values[:4] @ right[:4]
        down, up = (parameters[f"base_model.model.{name}.lora_{which}.weight"] for which in "AB")
        torch.testing.assert_close(2.0 * up @ down, wanted, rtol=1e-4, atol=1e-5)
    whole, lossy = logits(tiny.open("float32")), logits(tiny.open("float32", "nf4"))
    assert (logits(model) - whole).abs().mean() < 0.9 * (lossy - whole).abs().mean()
    again = attach_adapter(
        tiny.open("float32", "nf4"), adapter_config(model, "x"), adapter_tensors(model)
    ).eval()
    assert torch.equal(logits(again), logits(model))


def test_lengths_of_rows_follow_the_adapter(tiny: Tiny) -> None:
    """What is remembered of A and B is forgotten when they change, however they are changed."""
    model = tiny.trained(DORA)
    before = logits(model)
    up = next(p for name, p in adapter_parameters(model).items() if "lora_B" in name)
    up.data.mul_(3.0)  # which autograd's version counter does not see
    after = logits(model)
    assert (after - before).abs().max() > 1e-3
    fresh = tiny.adapted(DORA)
    load_adapter_tensors(fresh, adapter_tensors(model))
    assert torch.equal(logits(fresh), after)


def test_token_ids() -> None:
    vocabulary = {"a": 3, "<x>": 7, "b": 4}
    assert token_ids(["<x>", 3], vocabulary) == (7, 3)
    for wanted, found in ((["<y>", 9], "no token '<y>', 9"), (["a", 3], "named twice")):
        with pytest.raises(ModelError, match=found):
            token_ids(wanted, vocabulary)


def test_rows_are_put_into_any_part_of_a_matrix() -> None:
    matrix, ids, rows = torch.arange(20.0).view(10, 2), [7, 2], torch.tensor([[70.0, 71], [20, 21]])
    whole = put_rows(matrix.clone(), None, ids, rows)
    assert torch.equal(whole[ids], rows)
    assert torch.equal(whole[:2], matrix[:2])
    assert torch.equal(put_rows(matrix[5:9].clone(), slice(5, 9), ids, rows), whole[5:9])
    some = torch.tensor([2, 9, 7, 2])
    assert torch.equal(put_rows(matrix[some], some, ids, rows), whole[some])


def test_rows_leave_the_quick_path_and_the_base_alone(tiny: Tiny, examples: Any) -> None:
    """They are off with the adapter, on again after it, and never mixed with another adapter."""
    model = add_adapter(tiny.open(), LoraSpec(rank=4), tiny.family, seed=3, tokens=[5, 6])
    assert fused_llama.fits(model.get_base_model()) == (tiny.family.name == "llama")
    base, untouched = logits(tiny.open()), logits(model)
    with torch.no_grad():
        for rows in row_parameters(model).values():
            rows.mul_(2.0)
    batch = tiny.collate(examples(3, 4))
    changed = sum_nats(model, batch).nats
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), base, rtol=1e-11, atol=1e-11)
        assert sum_nats(model, batch).nats != changed
    assert sum_nats(model, batch).nats == changed
    torch.testing.assert_close(untouched, base, rtol=1e-11, atol=1e-11)
    config = adapter_config(model, "x")
    with pytest.raises(ModelError, match="can't share with other adapters"):
        attach_another(model, "two", config, adapter_tensors(model))
    for wrong in ([5, 5], [-1], [300], "all", {"q_proj": [5]}, [True]):
        with pytest.raises(ModelError, match="not a list of the embedding's rows"):
            attach_adapter(tiny.open(), config | {"trainable_token_indices": wrong}, adapter_tensors(model))
