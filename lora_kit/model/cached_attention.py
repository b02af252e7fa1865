"""Attention to what a KeyValueCache knows, in a pass that reads prompts or that goes on with many rows."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from lora_kit.model.attention import ON_THE_MASK
from lora_kit.model.kv_cache import KeyValueCache, Span

CACHED_ATTENTION = "lora_kit_cached"


def cached_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    **options: Any,  # noqa: ANN401 - the signature of transformers' AttentionInterface
) -> tuple[Tensor, None]:
    """Attend to what the cache knows and to the new tokens up to one's own.

    Args:
        module: The attention layer; it has a ``layer_idx``.
        query: Float ``(1, heads, N, D)``, the new tokens end to end.
        key: The same with the key-value heads.
        value: Like ``key``.
        attention_mask: From :func:`mask_for`; it carries the cache.
        options: ``scaling``.

    Returns:
        Float ``(1, N, heads, D)``, and no attention weights.
    """
    cache: KeyValueCache = getattr(attention_mask, ON_THE_MASK)["kv_cache"]
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale: float = options["scaling"]
    known = cache.update(key, value, layer)
    if cache.step is not None:
        return look_back(query[0].transpose(0, 1) * scale, known, attention_mask, layer)[None], None
    visible = getattr(attention_mask, ON_THE_MASK)["visible"]
    parts = query.split([span.tokens for span in cache.spans], 2)
    pieces = [
        _attend(part, cache.row(layer, span), seen, scale)
        for part, span, seen in zip(parts, cache.spans, visible, strict=True)
    ]
    return torch.cat(pieces, dim=1), None


AttentionInterface.register(CACHED_ATTENTION, cached_attention)


def mask_for(cache: KeyValueCache, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to scores of a step's first tokens, ``(B, 1, 1, longest)``: minus infinity at later ones.

    Empty in a read. It carries the cache, the same for the other tokens of rows that have a few, ``(R, 1, T,
    1, longest)``, and what the tokens of each span may look at, to the layers, because StableLM's hand on
    nothing else.
    """
    step, others = cache.step, None
    if step is None:
        spans = cache.spans
        mask = torch.empty(1, 1, 0, 0, dtype=dtype, device=device)
    else:
        spans = [span for _, span in step.spans]
        mask = _later(step.positions[step.firsts], cache.longest, dtype)[:, None, None]
        if step.others is not None:
            others = _later(step.positions[step.others.tokens], cache.longest, dtype)[:, None, :, None]
    visible = [_visible(span, device) for span in spans]
    mask.__dict__[ON_THE_MASK] = {"kv_cache": cache, "others": others, "visible": visible}
    return mask


def _later(positions: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    later = torch.arange(longest, device=positions.device) > positions[..., None]
    return torch.zeros(later.shape, dtype=dtype, device=positions.device).masked_fill_(later, float("-inf"))


def _visible(span: Span, device: torch.device) -> Tensor | None:
    """What each token of a span may look at, bool ``(tokens, end)``; None for one token, which sees all."""
    if span.tokens == 1:
        return None
    return torch.ones(span.tokens, span.end, dtype=torch.bool, device=device).tril_(span.start)


def _attend(query: Tensor, known: tuple[Tensor, Tensor], visible: Tensor | None, scale: float) -> Tensor:
    """Let the tokens of a span look at its row.

    Args:
        query: Float ``(1, heads, T, D)``.
        known: Keys and values, ``(1, key-value heads, end, D)``.
        visible: From :func:`_visible`.
        scale: Of the scores.

    Returns:
        Float ``(1, T, heads, D)``.
    """
    keys, values = known
    whole = query.shape[2] == keys.shape[2] and visible is not None  # then no mask has to be read
    seen = scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=None if whole else visible,
        is_causal=whole,
        scale=scale,
        enable_gqa=query.shape[1] != keys.shape[1],
    )
    return seen.transpose(1, 2)


def look_back(query: Tensor, known: tuple[Tensor, Tensor], mask: Tensor, layer: int) -> Tensor:
    """Let a step's tokens look at what is known.

    Args:
        query: Float ``(N, heads, D)``, scaled.
        known: What the cache returned.
        mask: From :func:`mask_for`.
        layer: Number of the layer.

    Returns:
        Float ``(N, heads, D)``.
    """
    carried = getattr(mask, ON_THE_MASK)
    cache: KeyValueCache = carried["kv_cache"]
    step = cache.step
    assert step is not None
    firsts = query if step.place is None else query.index_select(0, step.firsts)
    groups = [_together(firsts[:, None], known, mask[:, :, None])[:, 0]]
    if step.place is None:
        return groups[0]
    if step.others is not None:
        rows, tokens = step.others
        own = query.index_select(0, tokens.flatten()).unflatten(0, tokens.shape)
        groups.append(_together(own, cache.rows(layer, rows), carried["others"]).flatten(0, 1))
    found = torch.cat(groups).index_select(0, step.place)
    for (at, span), visible in zip(step.spans, carried["visible"], strict=True):
        part = slice(at, at + span.tokens)
        found[part] = _attend(query[part].transpose(0, 1)[None], cache.row(layer, span), visible, 1.0)[0]
    return found


def _together(query: Tensor, known: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """All queries of a row that share a key head are rows of one product, and no key is repeated.

    Args:
        query: Float ``(B, T, heads, D)``, scaled.
        known: Keys and values, ``(B, key-value heads, longest, D)``.
        mask: Float ``(B, 1, T, 1, longest)``.

    Returns:
        Float ``(B, T, heads, D)``.
    """
    keys, values = known
    split = query.unflatten(2, (keys.shape[1], -1)).transpose(1, 2)  # (B, key-value heads, T, G, D)
    scores = torch.matmul(split.flatten(2, 3), keys.transpose(2, 3)).unflatten(2, split.shape[2:4])
    shares = torch.softmax(scores.add_(mask), dim=-1).flatten(2, 3)
    return torch.matmul(shares, values).unflatten(2, split.shape[2:4]).transpose(1, 2).flatten(2, 3)
