"""Does every adapter matrix learn? And does what lies beside a row change anything for it?

Both are asked of a few rows of the user's own, computed as a training step computes them, with adapters that
do something. Of a long row beginning and end are enough: what is asked holds for any tokens. The loss of rows
that are packed has to be that of the rows alone, and their gradient the sum of the rows' own (attention
across rows: TRL issue 1230, LLaMA-Factory issue 2289).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from lora_kit.audit.findings import Finding
from lora_kit.audit.perturbed import forget_gradients, perturbed
from lora_kit.audit.rounding import rounding_of
from lora_kit.data.prefix_trie import common_beginning
from lora_kit.data.row_file import spread
from lora_kit.data.types import Example
from lora_kit.model.adapter_inject import adapter_parameters
from lora_kit.model.bare import bare_model
from lora_kit.model.folder import listing
from lora_kit.model.forward import sum_nats
from lora_kit.model.lora_ops import ADAPTER
from lora_kit.model.trunk import DROPOUTS
from lora_kit.train.job import TrainJob
from lora_kit.train.out_of_memory import is_out_of_memory, release

LEARNING, APART = "gradients", "rows apart"
CANDIDATES = 256  # rows, evenly spread, of which the shortest are looked at
SHORTEST = 32  # among which are those two that begin alike for longest
HALF = 8  # tokens of a row's beginning, and as many before its last trained one
SEEN = 2  # a target behind fewer tokens gives no gradient to queries and keys


@dataclass(frozen=True, slots=True)
class _Trial:
    """Rows that are computed, together and alone, with adapters that do something."""

    job: TrainJob
    rows: Sequence[Example]

    def add(self, rows: Sequence[Example], sign: int = 1) -> float:
        """Add (or take away) the gradient of rows that are computed together; return their nats."""
        nats = sum_nats(self.job.model, self.job.layout.collate(rows).to(self.job.accelerator.device)).nats
        if nats.requires_grad:  # else no matrix is trained at all, which is found out afterwards
            (sign * nats).backward()
        return float(nats.detach())


def check_gradients(job: TrainJob) -> tuple[Finding, Finding]:
    """Compute a few rows, packed and alone.

    Args:
        job: A run before its first step; it is as it was afterwards.

    Returns:
        What was found of gradients, and of rows that see each other.
    """
    rows = few_rows(job.train)
    if not rows:
        why = f"no row has a trained token behind {SEEN} others"
        return Finding(LEARNING, why, "skipped"), Finding(APART, why, "skipped")
    try:
        return _tried(_Trial(job, rows))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    release()
    tokens = sum(len(row.input_ids) for row in rows)
    why = f"not looked at: {len(rows)} rows of {tokens} tokens together don't fit in memory"
    return Finding(LEARNING, why, "warning"), Finding(APART, why, "warning")


def few_rows(rows: Sequence[Example]) -> list[Example]:
    """Return two short rows without their middle: those that begin alike for longest."""
    usable = [row for row in spread(rows, CANDIDATES) if any(row.trained[SEEN:])]
    short = sorted(usable, key=lambda row: len(row.input_ids))[:SHORTEST]
    pairs = pairwise(sorted(short, key=lambda row: row.input_ids))
    alike = max(pairs, key=_in_common, default=short)
    return [_without_middle(row) for row in alike]


def _without_middle(row: Example) -> Example:
    end = max(at for at, trained in enumerate(row.trained) if trained) + 1
    kept = [*range(min(HALF, end)), *range(max(HALF, end - HALF), end)]
    ids, trained = (tuple(values[at] for at in kept) for values in (row.input_ids, row.trained))
    return replace(row, input_ids=ids, trained=trained)


def _in_common(pair: tuple[Example, Example]) -> int:
    one, other = (np.array(row.input_ids) for row in pair)
    return common_beginning(one, other)


def _tried(trial: _Trial) -> tuple[Finding, Finding]:
    model = trial.job.model
    with perturbed(model):
        model.train()
        nats = trial.add(trial.rows)
        learning = _learning(trial.job)
        if _is_random(trial.job):  # rows together and alone would draw other dropout masks
            forget_gradients(model)
            model.eval()
            nats = trial.add(trial.rows)
        return learning, _apart(trial, nats)


def _learning(job: TrainJob) -> Finding:
    """Say which matrices have no gradient, or one that is not finite."""
    parameters = adapter_parameters(job.model)
    norms = {name: 0.0 if p.grad is None else float(p.grad.norm()) for name, p in parameters.items()}
    still = [name for name, norm in norms.items() if norm == 0]
    wild = [name for name, norm in norms.items() if not norm < float("inf")]
    if wild:
        found = f"not finite in {len(wild)} of {len(norms)} trained matrices: {listing(wild, 2)}"
        return Finding(LEARNING, found, "failed", "base.model", "its weights may be damaged: fetch it again")
    if still:
        found = f"none for {len(still)} of {len(norms)} trained matrices: {listing(still, 2)}"
        cure = "they would never learn: leave out layers that these rows never pass through"
        return Finding(LEARNING, found, "failed", "lora.targets", cure)
    return Finding(LEARNING, f"each of {len(norms)} trained matrices gets one")


def _apart(trial: _Trial, nats: float) -> Finding:
    """Compare the rows together, whose gradient is there, with the rows alone."""
    rows, parameters = trial.rows, adapter_parameters(trial.job.model).values()
    if len(rows) == 1:
        return Finding(APART, "there is only one row", "skipped")
    whole = _length(parameters)
    alone = sum(trial.add([row], -1) for row in rows)
    trained = sum(sum(row.trained[1:]) for row in rows)
    loss, gradient = abs(nats - alone) / trained, _length(parameters) / whole if whole else 0.0
    allowed = rounding_of(trial.job.model)
    how = f"loss differs by {loss:.1g} nats a token, the gradient by {gradient:.1g} of its length"
    what = f"{len(rows)} rows packed, and each alone: {how}"
    if loss <= allowed.nats and gradient <= allowed.gradient:
        return Finding(APART, what)
    named = ", ".join(row.origin for row in rows)
    cure = "please report this; train.micro_batch_tokens: 1 computes each row alone"
    return Finding(APART, f"rows see each other: {what} ({named})", "failed", "base.model", cure)


def _length(parameters: Iterable[nn.Parameter]) -> float:
    """Length of the gradient of all parameters together."""
    squares = [p.grad.double().square().sum() for p in parameters if p.grad is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _is_random(job: TrainJob) -> bool:
    config = bare_model(job.model).config
    own = any(getattr(config, name, 0) for name in DROPOUTS)
    return bool(job.model.peft_config[ADAPTER].lora_dropout) or own
