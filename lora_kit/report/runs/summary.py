"""How far a run is, from what it has left on disk; it may be at work meanwhile, and nothing is touched.

A run writes ``running`` when it begins and ``finished`` or ``diverged`` when it ends. Between the two, only
its lock tells one that is at work from one that was cut.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lora_kit.artifacts.folder_lock import Owner, holder
from lora_kit.artifacts.manifest import read_object
from lora_kit.artifacts.metrics_tail import MetricsTail
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.errors import ModelError, RecipeError
from lora_kit.report.wording import finite

Condition = Literal["created", "running", "cut", "finished", "diverged", "damaged"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run at one moment.

    Args:
        path: Its directory.
        name: The recipe's name, else the directory's.
        state: ``created`` has not begun, ``cut`` began and nobody is at work, ``damaged`` can't be read.
        step: Last step in the log.
        steps: Steps in all, None if not known yet.
        loss: Last training loss, nats per token.
        validation_loss: Held-out loss of what was kept, or while it runs the last one.
        changed: Last sign of life, seconds since 1970.
        owner: Who is at work there.
    """

    path: Path
    name: str
    state: Condition
    step: int
    steps: int | None
    loss: float | None
    validation_loss: float | None
    changed: float
    owner: Owner | None = None

    @property
    def age(self) -> float:
        """Seconds since the last sign of life."""
        return max(0.0, time.time() - self.changed)

    def to_json(self) -> dict[str, Any]:
        """The fields, and the age in seconds."""
        return asdict(self) | {"path": str(self.path), "age": round(self.age, 1)}


def summarise(run: RunDir, records: Sequence[Mapping[str, Any]] | None = None) -> RunSummary:
    """Look at a run.

    Args:
        run: Its directory.
        records: Its training log, if it was read already.
    """
    owner = holder(run.lock_file)  # before its state: one that ends in between is finished, not cut
    try:
        state = read_object(run.state)
    except ModelError:
        state = {"status": "damaged"}
    lines = MetricsTail(run.metrics).read() if records is None else records
    validations = [loss for line in lines if (loss := finite(line.get("validation_loss"))) is not None]
    kept = finite(state.get("validation_loss"))
    steps = state.get("steps")
    return RunSummary(
        path=run.path,
        name=str(state.get("name") or run.path.name),
        state=_condition(state, at_work=owner is not None),
        step=lines[-1]["step"] if lines else 0,
        steps=steps if isinstance(steps, int) else None,
        loss=finite(lines[-1].get("loss")) if lines else None,
        validation_loss=kept if kept is not None else (validations[-1] if validations else None),
        changed=_last_change(run),
        owner=owner,
    )


def _condition(state: Mapping[str, Any], *, at_work: bool) -> Condition:
    match state.get("status"):
        case "finished":
            return "finished"
        case "diverged":
            return "diverged"
        case "damaged":
            return "damaged"
        case "created" if not at_work:
            return "created"
    return "running" if at_work else "cut"


def _last_change(run: RunDir) -> float:
    """When its log or its state was last written: only shown, nothing is decided by it."""
    times = []
    for path in (run.metrics, run.state):
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times, default=0.0)


def runs_in(folder: Path) -> list[RunDir]:
    """The runs right below a folder, by name; a missing folder holds none."""
    if not folder.is_dir():
        return []
    found = [RunDir(path.absolute()) for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return [run for run in found if run.path.is_dir() and run.is_run()]


def find_run(name: str, folder: Path) -> RunDir:
    """A run by its path, or by the name of its directory below ``folder``.

    Raises:
        RecipeError: There is none; lists those that there are.
    """
    for path in (Path(name), folder / name):
        if RunDir(path).is_run():
            return open_run(path, create=False)
    known = ", ".join(run.path.name for run in runs_in(folder)[:8])
    raise RecipeError(
        "no such run", where=name, cure=f"in {folder}: {known}" if known else f"there is no run in {folder}"
    )


def bytes_of(folder: Path) -> int:
    """Size of a folder's files; links count as themselves, and what vanishes meanwhile as nothing."""
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(root, file)).st_size  # noqa: PTH118 - many files
            except FileNotFoundError:
                continue
    return total
