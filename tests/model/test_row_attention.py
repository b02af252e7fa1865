"""Attention of a whole row in one call equals that segment by segment; kernels of a GPU have stand-ins."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_kit.model import attention, row_attention
from lora_kit.model.attention import segment_attention

ROWS = [((5, 3, 7), (-1, -1, -1)), ((6, 4, 3, 5, 2), (-1, 0, 0, 1, -1))]
EXACT = 1e-12


def plain_varlen(
    query: Tensor, key: Tensor, value: Tensor, ends: tuple[Tensor, Tensor], scaling: float
) -> Tensor:
    """What flash-attn promises: rows by their ends, causal and aligned to the last key, heads in groups."""
    groups = query.shape[1] // key.shape[1]
    pieces = []
    for row in range(len(ends[0]) - 1):
        own, seen = (slice(int(end[row]), int(end[row + 1])) for end in ends)
        q, k, v = query[own], key[seen].repeat_interleave(groups, 1), value[seen].repeat_interleave(groups, 1)
        mask = torch.ones(len(q), len(k), dtype=torch.bool).tril(len(k) - len(q))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scaling
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        pieces.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(pieces)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """flash_attn and torch's varlen_attn with the signatures that their documentation gives."""
    calls: list[dict[str, Any]] = []

    def flash_attn_varlen_func(*given: Any, **options: Any) -> Tensor:
        query, key, value, queries, keys, longest_queries, longest_keys = given
        assert options.pop("causal")
        scaling = options.pop("softmax_scale")
        assert queries.dtype == keys.dtype == torch.int32
        calls.append({"longest": (longest_queries, longest_keys), **options})
        return plain_varlen(query, key, value, (queries, keys), scaling)

    from torch.nn.attention import varlen as module

    true = module.varlen_attn

    def varlen_attn(*given: Any, **options: Any) -> Tensor:
        import inspect

        bound = inspect.signature(true).bind(*given, **options).arguments  # as the true one takes them
        calls.append({"longest": (bound["max_q"], bound["max_k"])})
        assert bound["window_size"] == (-1, 0)
        assert bound["enable_gqa"] == (bound["query"].shape[1] != bound["key"].shape[1])
        ends = bound["cu_seq_q"], bound["cu_seq_k"]
        return plain_varlen(bound["query"], bound["key"], bound["value"], ends, bound["scale"])

    package = SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func)
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setattr(module, "varlen_attn", varlen_attn)
    for kernel in (row_attention.flash, row_attention.varlen, row_attention.flex):
        kernel.cache_clear()
    return calls


def attend(
    way: str, lengths: tuple[int, ...], parents: tuple[int, ...], monkeypatch: Any, kv_heads: int = 2
) -> tuple[Tensor, list[Tensor]]:
    """Output and gradients of one way."""
    monkeypatch.setattr(attention, "attention_way", lambda *_, **__: way)
    generator = torch.Generator().manual_seed(3)
    heads = (4, kv_heads, kv_heads)
    states = [
        torch.randn(1, n, sum(lengths), 8, generator=generator, dtype=torch.float64).requires_grad_()
        for n in heads
    ]
    options = {"scaling": 0.3, "segment_lengths": lengths, "segment_parents": parents}
    output, _ = segment_attention(torch.nn.Module(), *states, None, **options)
    weight = torch.randn(output.shape, generator=generator, dtype=output.dtype)
    return output, list(torch.autograd.grad((output * weight).sum(), states))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("lengths", "parents"), ROWS)
@pytest.mark.parametrize("way", ["flash", "varlen"])
def test_kernels_with_ends(
    stand_ins: list[dict[str, Any]], monkeypatch: Any, way: str, lengths: Any, parents: Any, kv_heads: int
) -> None:
    expected = attend("segments", lengths, parents, monkeypatch, kv_heads)
    assert not stand_ins
    found = attend(way, lengths, parents, monkeypatch, kv_heads)
    assert len(stand_ins) == 1
    assert stand_ins[0]["longest"] == ((7, 7) if lengths == ROWS[0][0] else (6, 15))
    for one, two in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
        assert (one - two).abs().max() <= EXACT


def test_flash_is_asked_for_the_same_bits_each_time(
    stand_ins: list[dict[str, Any]], monkeypatch: Any
) -> None:
    attend("flash", *ROWS[0], monkeypatch)
    assert stand_ins == [{"longest": (7, 7), "dropout_p": 0.0, "deterministic": True}]


@pytest.mark.parametrize(("lengths", "parents"), ROWS)
def test_the_mask_of_flex_attention_shows_what_segments_see(lengths: Any, parents: Any) -> None:
    visible = row_attention.block_mask(lengths, parents, torch.device("cpu")).mask_mod
    total, paths = sum(lengths), row_attention.paths_of(lengths, parents)
    expected = torch.zeros(total, total, dtype=torch.bool)
    for path in paths:
        for part in path:
            expected[path[-1], part] = True
    at = torch.arange(total)
    found = visible(torch.zeros(()), torch.zeros(()), at[:, None], at[None])
    assert torch.equal(found, expected.tril())


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("lengths", "parents"), ROWS)
def test_flex_attention_itself(monkeypatch: Any, lengths: Any, parents: Any) -> None:
    """Not compiled, as torch computes it on a CPU; forward only, for there it has no backward."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(row_attention, "flex", lambda: flex_attention)
    generator = torch.Generator().manual_seed(3)
    states = [torch.randn(1, n, sum(lengths), 16, generator=generator) for n in (4, 2, 2)]
    options = {"scaling": 0.3, "segment_lengths": lengths, "segment_parents": parents}
    found = []
    for way in ("segments", "flex"):
        monkeypatch.setattr(attention, "attention_way", lambda *_, way=way, **__: way)
        found.append(segment_attention(torch.nn.Module(), *states, None, **options)[0])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_dropout_of_attention_is_left_to_what_has_it(monkeypatch: Any) -> None:
    monkeypatch.setattr(attention, "attention_way", lambda *_, **__: "flex")
    monkeypatch.setattr(attention, "row_attention", lambda *_, **__: pytest.fail("flex has no dropout"))
    states = [torch.randn(1, 2, 4, 8) for _ in range(3)]
    segment_attention(torch.nn.Module(), *states, None, scaling=1.0, dropout=0.1, segment_lengths=(4,))
