"""How far a merged model is from base and adapter, in logits on real rows; both are read layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lora_kit.assemble import AdapterParts
from lora_kit.model.base import find_base
from lora_kit.model.layered import layered_model
from lora_kit.recipe.schema import BaseSpec, QuantizationSpec

POSITIONS = 64  # of each row, its last ones, that logits are compared at: they see all of it
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LogitDifference:
    """How far one model is from another, on real rows.

    Args:
        tokens: Positions that logits were compared at.
        max_logit_difference: Largest difference.
        mean_logit_difference: Mean difference.
        max_logit: Largest logit, to judge the differences by.
        greedy_agreement: Share of positions with the same most likely token.
    """

    tokens: int
    max_logit_difference: float
    mean_logit_difference: float
    max_logit: float
    greedy_agreement: float


def adapter_logits(
    parts: AdapterParts, rows: Sequence[Sequence[int]], quantization: QuantizationSpec
) -> list[Tensor]:
    """Return logits of base and adapter.

    Args:
        parts: The adapter and its base.
        rows: Token ids.
        quantization: How the base is held; as in training, or not at all.

    Returns:
        Float32 ``(positions, V)`` for each row, of its last positions.
    """
    model = layered_model(
        parts.files,
        dtype=TORCH_DTYPES[parts.dtype],
        quantization=quantization,
        adapter=(parts.adapter.config, parts.adapter.tensors()),
    )
    return _logits(model, rows)


def folder_logits(folder: Path, rows: Sequence[Sequence[int]], dtype: str) -> list[Tensor]:
    """Load a plain model as anybody would, and return logits as :func:`adapter_logits` does."""
    files = find_base(BaseSpec(model=str(folder)))
    return _logits(layered_model(files, dtype=TORCH_DTYPES[dtype]), rows)


def logit_difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> LogitDifference:
    """Compare logits row by row.

    Args:
        found: Of each row, ``(positions, V)``.
        wanted: The same, of the model that is right.
    """
    largest = total = logit = 0.0
    count = agree = positions = 0
    for got, want in zip(found, wanted, strict=True):
        difference = (got - want).abs()
        largest = max(largest, float(difference.max()))
        logit = max(logit, float(want.abs().max()))
        total += float(difference.double().sum())
        count += difference.numel()
        agree += int((got.argmax(-1) == want.argmax(-1)).sum())
        positions += len(want)
    return LogitDifference(positions, largest, total / count, logit, agree / positions)


@torch.no_grad()
def _logits(model: torch.nn.Module, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    found = []
    for ids in rows:
        output = model(input_ids=torch.tensor([list(ids)]), use_cache=False, logits_to_keep=POSITIONS)
        found.append(output.logits[0].float())
    return found
