"""Attention to what a KeyValueCache knows, in a pass that reads prompts or that goes on with many rows."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from lora_kit.model.attention import ON_THE_MASK
from lora_kit.model.kv_cache import KeyValueCache, Span, Step

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
    """What is added to a step's scores, ``(B, 1, 1, longest)``: minus infinity at later tokens.

    Empty in a read. It carries the cache, the mask ``(B, 1, T, 1, longest)`` of tokens that attend together,
    and what the tokens of each span may look at, to the layers, because StableLM's hand on nothing else.
    """
    step, together = cache.step, None
    if step is None:
        spans = cache.spans
        mask = torch.empty(1, 1, 0, 0, dtype=dtype, device=device)
    else:
        spans = [span for _, span in step.spans]
        together = _mask_together(step, cache.longest, dtype)
        mask = together[:, :, :1, 0]
    visible = [_visible(span, device) for span in spans]
    mask.__dict__[ON_THE_MASK] = {"kv_cache": cache, "together": together, "visible": visible}
    return mask


def _mask_together(step: Step, longest: int, dtype: torch.dtype) -> Tensor:
    last = step.positions[step.together][..., None]
    later = torch.arange(longest, device=last.device) > last
    zeros = torch.zeros(later.shape, dtype=dtype, device=last.device)
    return zeros.masked_fill_(later, float("-inf"))[:, None, :, None]


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
    if step.place is None:
        return _together(query[:, None], known, carried["together"])[:, 0]
    wanted = query.index_select(0, step.together.flatten()).unflatten(0, step.together.shape)
    found = _together(wanted, known, carried["together"]).flatten(0, 1).index_select(0, step.place)
    for (at, span), visible in zip(step.spans, carried["visible"], strict=True):
        part = slice(at, at + span.tokens)
        own = query[part].transpose(0, 1)[None]
        found[part] = _attend(own, cache.row(layer, span), visible, 1.0)[0]
    return found


def _together(query: Tensor, known: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """All queries of a row that share a key head are rows of one product, and no key is repeated.

    Args:
        query: Float ``(B, T, heads, D)``, scaled.
        known: Keys and values, ``(B, key-value heads, longest, D)``.
        mask: From :func:`_group_mask`.

    Returns:
        Float ``(B, T, heads, D)``.
    """
    keys, values = known
    split = query.unflatten(2, (keys.shape[1], -1)).transpose(1, 2)  # (B, key-value heads, T, G, D)
    scores = torch.matmul(split.flatten(2, 3), keys.transpose(2, 3)).unflatten(2, split.shape[2:4])
    shares = torch.softmax(scores.add_(mask), dim=-1).flatten(2, 3)
    return torch.matmul(shares, values).unflatten(2, split.shape[2:4]).transpose(1, 2).flatten(2, 3)
