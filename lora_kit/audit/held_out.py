"""Some held-out rows, the same ones whenever they are asked for.

Their loss is measured when training ends, and again when another process has read the adapter from disk.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from lora_kit.audit.findings import Finding
from lora_kit.audit.rounding import rounding_of
from lora_kit.data.layout import layout_of
from lora_kit.data.row_file import spread
from lora_kit.data.types import Example
from lora_kit.model.adapter_inject import load_adapter_tensors
from lora_kit.model.forward import example_nats
from lora_kit.train.job import TrainJob
from lora_kit.train.out_of_memory import is_out_of_memory

NAME = "loads elsewhere"
ROWS = 32
TOKENS = 2048  # of all rows together; a single row may be longer
AT_ONCE = 512


def sample(train: Sequence[Example], validation: Sequence[Example]) -> list[Example]:
    """Return a few rows, evenly spread over the held-out ones, or over all if none is held out."""
    chosen, tokens = list[Example](), 0
    for row in spread(validation or train, ROWS):
        tokens += len(row.input_ids)
        if not chosen or tokens <= TOKENS:
            chosen.append(row)
    return chosen


def sample_loss(model: PreTrainedModel, rows: Sequence[Example], *, flattened: bool) -> float:
    """Return the loss of some rows, nats a trained token, in evaluation mode and without sharing.

    Args:
        model: With its adapter.
        rows: At least one.
        flattened: The family's flag.
    """
    model.eval()
    layout = layout_of(flattened=flattened)
    batches = layout.micro_batches(rows, layout.plan(rows, AT_ONCE))
    nats = sum(float(example_nats(model, batch.to(model.device)).sum()) for batch in batches)
    return nats / sum(len(batch.targets) for batch in batches)


def measured_sample(job: TrainJob, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Measure what another process shall measure again; the model then holds the tensors.

    Args:
        job: A run after its last step.
        tensors: The adapter that is kept.

    Returns:
        JSON values; None if the rows don't fit in memory, or their loss is not finite.
    """
    rows = sample(job.train, job.validation)
    load_adapter_tensors(job.model, tensors)
    try:
        loss = sample_loss(job.model, rows, flattened=job.flattened)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None
    held_out = bool(job.validation)
    return {**described(rows), "held_out": held_out, "loss": loss} if math.isfinite(loss) else None


def described(rows: Sequence[Example]) -> dict[str, Any]:
    """Which rows these are."""
    digest = hashlib.sha256("".join(row.content_hash for row in rows).encode()).hexdigest()
    return {"rows": len(rows), "tokens": sum(row.trained_tokens for row in rows), "sha256": digest}


def check_reload(
    model: PreTrainedModel, rows: Sequence[Example], known: object, *, flattened: bool
) -> Finding:
    """Compare the loss of the rows with what it was when training ended.

    Args:
        model: The adapter on its base, read from disk.
        rows: What :func:`sample` returned.
        known: What :func:`measured_sample` returned, from the adapter's folder.
        flattened: The family's flag.
    """
    loss = sample_loss(model, rows, flattened=flattened)
    if not math.isfinite(loss):
        return Finding(NAME, "its loss is not finite", "failed", cure="train it again with a lower rate")
    now = f"{loss:.4f} nats a token on {len(rows)} rows"
    if not isinstance(known, Mapping) or not isinstance(known.get("loss"), float):
        return Finding(NAME, f"{now}; there is no loss of its training to compare it with", "skipped")
    if {**known, **described(rows)} != {**known}:
        return Finding(NAME, f"{now}; the rows are not those that training measured", "skipped")
    difference, allowed = abs(loss - known["loss"]), rounding_of(model).same_nats * max(1.0, loss)
    if difference <= allowed:
        how = f"within {difference:.1g} of" if difference else "exactly"
        return Finding(NAME, f"{now}, {how} what it was in training")
    found = f"{now}, but {known['loss']:.4f} when training ended"
    cure = "the adapter on disk is not what was trained: go on from a checkpoint, or train it again"
    return Finding(NAME, found, "failed", cure=cure)
