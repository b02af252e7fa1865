"""Attention to what a KeyValueCache knows, in a pass that reads prompts or that goes on with many rows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from lora_kit.model.attention import ON_THE_MASK
from lora_kit.model.kv_cache import Group, KeyValueCache, Span, Step

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
    carried = getattr(attention_mask, ON_THE_MASK)
    cache: KeyValueCache = carried["kv_cache"]
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale: float = options["scaling"]
    known = cache.update(key, value, layer)
    if cache.step is not None:
        seen = _look_back(query[0] * scale, known, carried["masks"], cache.step)
        for (at, span), visible in zip(cache.step.spans, carried["visible"], strict=True):
            part = query[:, :, at : at + span.tokens]
            seen[:, at : at + span.tokens] = _attend(part, cache.row(layer, span), visible, scale)
        return seen, None
    parts = query.split([span.tokens for span in cache.spans], 2)
    pieces = [
        _attend(part, cache.row(layer, span), visible, scale)
        for part, span, visible in zip(parts, cache.spans, carried["visible"], strict=True)
    ]
    return torch.cat(pieces, dim=1), None


AttentionInterface.register(CACHED_ATTENTION, cached_attention)


def mask_for(cache: KeyValueCache, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to a step's scores, ``(B, 1, 1, longest)``: minus infinity at later tokens.

    Empty in a read. It carries the cache, the masks ``(B, 1, T, 1, longest)`` of a step's groups, and what
    the tokens of each span may look at, to the layers, because StableLM's hand on nothing else.
    """
    step = cache.step
    if step is None:
        spans, masks = cache.spans, []
        mask = torch.empty(1, 1, 0, 0, dtype=dtype, device=device)
    else:
        spans = [span for _, span in step.spans]
        masks = [_group_mask(step, group, cache.longest, dtype) for group in step.groups]
        mask = masks[0][:, :, :, 0]
    visible = [_visible(span, device) for span in spans]
    mask.__dict__[ON_THE_MASK] = {"kv_cache": cache, "masks": masks, "visible": visible}
    return mask


def _group_mask(step: Step, group: Group, longest: int, dtype: torch.dtype) -> Tensor:
    last = step.positions[group.tokens][..., None]
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


def _look_back(query: Tensor, known: tuple[Tensor, Tensor], masks: Sequence[Tensor], step: Step) -> Tensor:
    """Attend group by group; ``query`` is ``(heads, N, D)``, scaled.

    Returns:
        Float ``(1, N, heads, D)``; of tokens that are in no group, whatever was there.
    """
    if len(step.groups) == 1 and not step.spans:
        return _together(query.transpose(0, 1)[:, None], known, masks[0])[None, :, 0]
    seen = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
    for (rows, tokens), mask in zip(step.groups, masks, strict=True):
        own = known if rows is None else (known[0].index_select(0, rows), known[1].index_select(0, rows))
        wanted = query.index_select(1, tokens.flatten()).transpose(0, 1).unflatten(0, tokens.shape)
        seen.index_copy_(0, tokens.flatten(), _together(wanted, own, mask).flatten(0, 1))
    return seen[None]


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
