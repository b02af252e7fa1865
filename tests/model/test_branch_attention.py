"""A segment sees its ancestors and itself; sharing beginnings changes neither loss nor gradient (1e-12)."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lora_kit.data.collate import flatten, share
from lora_kit.data.types import Example
from lora_kit.model import branch_attention as module
from lora_kit.model.adapter_inject import adapter_parameters, add_adapter
from lora_kit.model.attention import segment_attention
from lora_kit.model.forward import example_nats, sum_nats
from lora_kit.recipe.schema import LoraSpec

LENGTHS = (5, 3, 2, 4, 1, 6)
PARENTS = (-1, 0, 1, 0, -1, 4)


def mask_of_tree() -> Tensor:
    """Query by key: ancestors wholly, itself causally."""
    owner = [segment for segment, length in enumerate(LENGTHS) for _ in range(length)]
    lines: list[set[int]] = []
    for segment, parent in enumerate(PARENTS):
        lines.append({segment, *(lines[parent] if parent >= 0 else ())})
    tokens = range(len(owner))
    return torch.tensor([[owner[k] in lines[owner[q]] and k <= q for k in tokens] for q in tokens])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kept", [0, 384], ids=["made again", "kept"])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_it_equals_a_mask(key_heads: int, kept: int, threads: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "KEPT", kept)
    monkeypatch.setattr(module, "BLOCK", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.manual_seed(0)
    sizes = [4, key_heads, key_heads]
    inputs = [torch.randn(1, n, 21, 8, dtype=torch.float64, requires_grad=True) for n in sizes]
    query, key, value = inputs
    repeated = (tensor.repeat_interleave(4 // key_heads, 1) for tensor in (key, value))
    expected = scaled_dot_product_attention(query, *repeated, attn_mask=mask_of_tree(), scale=0.3)
    options = {"scaling": 0.3, "segment_lengths": LENGTHS, "segment_parents": PARENTS}
    found, _ = segment_attention(SimpleNamespace(), query, key, value, None, **options)
    assert torch.allclose(found, expected.transpose(1, 2), rtol=0, atol=1e-14)
    weight = torch.randn_like(found)
    theirs = torch.autograd.grad((expected.transpose(1, 2) * weight).sum(), inputs)
    ours = torch.autograd.grad((found * weight).sum(), inputs)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-13) for a, b in zip(ours, theirs, strict=True))


def test_short_numbers_take_torchs_own_kernel_and_agree() -> None:
    query, key, value = (torch.randn(1, n, 21, 8, dtype=torch.bfloat16) for n in (4, 2, 2))
    options = {"scaling": 0.3, "segment_lengths": LENGTHS, "segment_parents": PARENTS}
    found, _ = segment_attention(SimpleNamespace(), query, key, value, None, **options)
    exact, _ = segment_attention(
        SimpleNamespace(), query.double(), key.double(), value.double(), None, **options
    )
    assert (found - exact).abs().max() < 0.05


def relatives(seed: int, count: int) -> list[Example]:
    """Rows of which most begin like an earlier one; targets anywhere, also in what is shared."""
    draw = random.Random(seed)
    rows: list[tuple[int, ...]] = []
    for _ in range(count):
        kept = draw.choice(rows)[: draw.randint(16, 60)] if rows and draw.random() < 0.8 else ()
        rows.append((*kept, *(draw.randrange(300) for _ in range(draw.randint(1, 30)))))
    return [
        Example(ids, tuple(draw.random() < 0.5 for _ in ids), f"r:{n}", f"{n:064x}")
        for n, ids in enumerate(rows)
    ]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sharing_is_exact(family: str, seed: int, tiny_folder: Any, base_of: Any, open_model: Any) -> None:
    folder = tiny_folder(family)
    model = add_adapter(open_model(folder), LoraSpec(rank=4), base_of(folder).family, seed=3).train()
    for parameter in (parameters := adapter_parameters(model)).values():
        parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(5))
    examples = relatives(seed, 8)
    found = []
    for batch in (flatten(examples), share(examples)):
        loss = sum_nats(model, batch)
        loss.nats.backward()
        grads = [parameter.grad / loss.tokens for parameter in parameters.values()]
        assert torch.allclose(loss.of_examples, example_nats(model, batch), rtol=0, atol=1e-12)
        found.append((loss.nats.item() / loss.tokens, grads, loss.of_examples))
        model.zero_grad()
    (loss, grads, nats), (shared_loss, shared_grads, shared_nats) = found
    assert share(examples).shared_tokens > 0
    assert shared_loss == pytest.approx(loss, abs=1e-12)
    assert torch.allclose(nats, shared_nats, rtol=0, atol=1e-12)
    assert max(grad.abs().max().item() for grad in grads) > 1e-2
    assert all((a - b).abs().max() <= 1e-12 for a, b in zip(grads, shared_grads, strict=True))
