"""A finished run into the ledger: what its plan said, or would have said, and what it took.

A run that was not planned is predicted now, from its config and rows: that uses nothing of the run itself,
and one product says how quick the machine is. Only where that is worth its two seconds.
"""

from datetime import UTC, datetime
from pathlib import Path

import psutil

from lora_kit.artifacts.metrics_log import read_metrics
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.errors import LoraKitError
from lora_kit.planning.ledger import Amounts, append, kept_prediction
from lora_kit.recipe.fingerprint import training_fingerprint
from lora_kit.recipe.schema import Recipe
from lora_kit.train.clock import LONGEST_START
from lora_kit.train.observe import Silent

WORTH_SECONDS = 30.0  # of steps, for a run that was not planned


def remember_run(recipe: Recipe, path: Path, *, ended: float | None = None) -> bool:
    """Write a finished run into the ledger; never raises for what it finds or can't write.

    Args:
        recipe: The run's.
        path: The run directory.
        ended: When its command ended, as ``time.time`` counts; None if that did other things too.

    Returns:
        Whether it was written.
    """
    try:
        actual = _actual(RunDir(path.absolute()), ended)
        fingerprint = training_fingerprint(recipe)
        known = kept_prediction(fingerprint) or _predicted(recipe, actual)
    except (LoraKitError, OSError, KeyError, TypeError, ValueError):
        return False
    if known is None or not actual.step_seconds:
        return False
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return append(fingerprint, *known, actual, date)


def _actual(run: RunDir, ended: float | None) -> Amounts:
    """Read what a run took from what it left."""
    records = read_metrics(run.metrics)
    steps = sum(float(record["seconds"]) for record in records)
    peak = max((int(record["peak_memory_bytes"]) for record in records), default=0)
    other = None if ended is None else _whole_seconds(run, ended)
    return Amounts(steps or None, other - steps if other and other > steps else None, peak or None)


def _whole_seconds(run: RunDir, ended: float) -> float | None:
    """Seconds from the process's beginning, if the run began in it; a resumed run has had another one."""
    began = psutil.Process().create_time()
    started = datetime.fromisoformat(str(run.read_state()["started"])).timestamp()
    return ended - began if -1.0 <= started - began <= LONGEST_START else None


def _predicted(recipe: Recipe, actual: Amounts) -> tuple[str, Amounts] | None:
    if (actual.step_seconds or 0.0) < WORTH_SECONDS:
        return None
    from lora_kit.planning.known import know_base
    from lora_kit.planning.predicted import predicted_estimate

    estimate = predicted_estimate(recipe, know_base(recipe.base), None, Silent())
    return estimate.kind, estimate.raw
