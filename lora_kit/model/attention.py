"""Causal attention per segment: rows laid end to end in one long row, each attending to itself alone.

A block-diagonal mask over the long row costs (sum L)^2 and disables the quick kernels; a loop over the
segments costs sum L^2, needs no mask and is exact. Segment lengths travel as a keyword argument through
transformers' models; without them the function is transformers' own sdpa, so ``generate()`` works on the same
model.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SEGMENT_ATTENTION = "lora_kit_segments"


def segment_arguments(lengths: tuple[int, ...], device: torch.device) -> dict[str, Any]:
    """Return the keyword arguments of a model's forward for one row of segments.

    The four-dimensional mask is empty on purpose: transformers hands it on as it is and builds no (T, T) mask
    of its own, and a model without segment attention fails on it instead of letting the segments see each
    other.

    Args:
        lengths: Tokens of each segment, in order.
        device: Where the model is.
    """
    mask = torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)
    return {"segment_lengths": lengths, "attention_mask": mask}


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
        options: ``scaling``, ``dropout`` and, for rows of segments, ``segment_lengths`` (sums to T).

    Returns:
        Float ``(1, T, heads, D)``, and no attention weights.
    """
    lengths: tuple[int, ...] | None = options.pop("segment_lengths", None)
    if lengths is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return output
    grouped = query.shape[1] != key.shape[1]
    pieces = [
        scaled_dot_product_attention(
            q,
            k,
            v,
            dropout_p=options.get("dropout", 0.0),
            is_causal=True,
            scale=options["scaling"],
            enable_gqa=grouped,
        )
        for q, k, v in zip(
            query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True
        )
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def register_segment_attention() -> str:
    """Make the function known to transformers (any number of times) and return its name."""
    AttentionInterface.register(SEGMENT_ATTENTION, segment_attention)
    AttentionMaskInterface.register(SEGMENT_ATTENTION, sdpa_mask)
    return SEGMENT_ATTENTION
