"""Causal attention per segment: rows laid end to end in one long row, each attending to itself alone.

With parents, segments make a trie: each attends to its ancestors too, so that what rows have in common at
their beginning is computed once.

A block-diagonal mask over the long row costs (sum L)^2 and disables the quick kernels; a loop over the
segments costs sum L^2, needs no mask and is exact. Segment lengths travel as a keyword argument through
transformers' models; without them the function is transformers' own sdpa, so ``generate()`` works on the same
model.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lora_kit.model.branch_attention import branch_attention, paths_of
from lora_kit.model.machine import attention_way, machine_of
from lora_kit.model.row_attention import row_attention

SEGMENT_ATTENTION = "lora_kit_segments"
ON_THE_MASK = "lora_kit_arguments"


def segment_arguments(
    lengths: tuple[int, ...], device: torch.device, parents: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Return the keyword arguments of a model's forward for one row of segments.

    The four-dimensional mask is empty on purpose: transformers hands it on as it is and builds no (T, T) mask
    of its own, and a model without segment attention fails on it instead of letting the segments see each
    other.

    Args:
        lengths: Tokens of each segment, in order.
        device: Where the model is.
        parents: The earlier segment that each continues, -1 for none; empty if none does.
    """
    mask = torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)
    continued = any(parent >= 0 for parent in parents)
    segments = {"segment_lengths": lengths} | ({"segment_parents": parents} if continued else {})
    # StableLM's layers hand on no arguments but the mask.
    mask.__dict__[ON_THE_MASK] = segments
    return {"attention_mask": mask} | segments


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,  # noqa: ANN401 - the signature of transformers' AttentionInterface
) -> tuple[Tensor, None]:
    """Attend causally within each segment.

    Args:
        module: The attention layer.
        query: Float ``(1, heads, T, D)``.
        key: Float ``(1, key-value heads, T, D)``.
        value: Like ``key``.
        attention_mask: Ignored when ``segment_lengths`` is among the options.
        options: ``scaling``, ``dropout`` and, for rows of segments, ``segment_lengths`` (sums to T) and
            ``segment_parents``.

    Returns:
        Float ``(1, T, heads, D)``, and no attention weights.
    """
    options |= getattr(attention_mask, ON_THE_MASK, {})
    lengths: tuple[int, ...] | None = options.pop("segment_lengths", None)
    if lengths is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return output
    chances = {"scaling": options["scaling"], "dropout": options.get("dropout", 0.0)}
    parents = options.get("segment_parents") or (-1,) * len(lengths)
    way = attention_way(machine_of(query.device), query.dtype, query.shape[3], branches=max(parents) >= 0)
    if way != "segments" and (way == "flash" or not chances["dropout"]):
        return row_attention(way, (query, key, value), lengths, parents, **chances).transpose(1, 2), None
    paths = paths_of(lengths, parents)
    return branch_attention(query, key, value, paths, **chances).transpose(1, 2), None


def register_segment_attention() -> str:
    """Make the function known to transformers (any number of times) and return its name."""
    AttentionInterface.register(SEGMENT_ATTENTION, segment_attention)
    AttentionMaskInterface.register(SEGMENT_ATTENTION, sdpa_mask)
    return SEGMENT_ATTENTION
