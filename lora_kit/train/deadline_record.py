"""deadline.json: what a run was asked for, the time it has used, and each number of steps it has had.

A number of steps bends the learning rate's way to zero, so it is on disk before the first step that uses it;
a run that goes on, or is audited, makes its steps by what is written here and not by the clock.
"""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from lora_kit.artifacts.commit import write_json
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.recipe.schema import LARGEST
from lora_kit.train.clock import Session
from lora_kit.train.plan import Turn
from lora_kit.train.run_record import read_record

FORMAT = 1


class Decision(NamedTuple):
    """A number of steps.

    Args:
        after: Steps that were made when it was decided.
        steps: In all, from then on.
        used_seconds: Of the allotted time, by then.
        seconds_per_token: The speed that it was decided with.
    """

    after: int
    steps: int
    used_seconds: float
    seconds_per_token: float


@dataclass(frozen=True, slots=True)
class DeadlineRecord:
    """The deadline of a run.

    Args:
        asked: In words: ``90 minutes``, ``by 23:00``.
        until: When that is, ISO 8601 with its zone; empty for minutes.
        allotted_seconds: From the run's beginning to its end.
        used_seconds: That its processes have used; time between them counts only towards ``until``.
        decisions: In order; the first one after no step.
        finished: Whether the last step was made: nothing is decided any more.
    """

    asked: str
    until: str
    allotted_seconds: float
    used_seconds: float
    decisions: tuple[Decision, ...] = ()
    finished: bool = False

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What the learning rate depends on."""
        return tuple(Turn(one.after, one.steps) for one in self.decisions)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        decisions = [one._asdict() for one in self.decisions]
        return {"format_version": FORMAT, **asdict(self), "decisions": decisions}

    def summary(self) -> dict[str, Any]:
        """What is told of it in run.json and in the report."""
        return {
            "asked": self.asked,
            "until": self.until or None,
            "allotted_seconds": round(self.allotted_seconds, 1),
            "used_seconds": round(self.used_seconds, 1),
            "steps": self.decisions[-1].steps if self.decisions else 0,
            "replans": max(0, len(self.decisions) - 1),
        }


def read_deadline(run: RunDir) -> DeadlineRecord | None:
    """Read a run's deadline; None if it has written none.

    Raises:
        ModelError: The file is damaged.
    """
    return read_record(run.deadline, _parsed)


def write_deadline(path: Path, record: DeadlineRecord) -> None:
    """Write a run's deadline.

    Raises:
        MachineError: Disk full, read-only, or gone.
    """
    write_json(path, record.to_json())


def close_deadline(run: RunDir, session: Session) -> None:
    """Write down, and into run.json, what a run's sessions have used; nothing without a deadline."""
    record = read_deadline(run)
    if record is not None and session.used_before is not None:
        record = replace(record, used_seconds=session.used_seconds)
        write_deadline(run.deadline, record)
        run.update_state(deadline=record.summary())


def _parsed(fields: dict[str, Any]) -> DeadlineRecord | None:
    decisions = tuple(Decision(**one) for one in fields.pop("decisions"))
    if fields.pop("format_version") != FORMAT:
        return None
    record = DeadlineRecord(**fields, decisions=decisions)
    if record.until and datetime.fromisoformat(record.until).tzinfo is None:
        return None
    counts = [number for one in decisions for number in (one.after, one.steps)]
    seconds = [record.allotted_seconds, record.used_seconds, *(one.seconds_per_token for one in decisions)]
    afters = [one.after for one in decisions]
    whole = (
        type(record.finished) is bool
        and all(type(count) is int and 0 <= count <= LARGEST for count in counts)
        and all(isfinite(number) and number >= 0 for number in seconds)
        and all(one.steps >= 1 and one.after <= one.steps for one in decisions)
        and afters[:1] == [0]
        and afters == sorted(afters)
    )
    return record if whole else None
