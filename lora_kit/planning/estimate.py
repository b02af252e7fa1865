"""What both ways to plan end with: raw amounts, what corrects them, and how to predict another recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_kit.data.prepare import PreparedData
from lora_kit.model.predict_memory import MemoryNeed
from lora_kit.planning.case import Case
from lora_kit.planning.cost import combined
from lora_kit.planning.ledger import Amounts, Correction
from lora_kit.planning.outlook import How, Rows, Span

MEMORY_ERROR = 0.10  # of a measured peak: how blocks of changing sizes come to lie is chance


@dataclass(frozen=True, slots=True)
class Estimate:
    """What was found out about a run.

    Args:
        how: Whether steps were timed here.
        where: This machine, or a device.
        kind: What runs correct it, and it will correct.
        case: The run.
        need: Its memory by shapes.
        rows: What it learns from.
        raw: What it takes, uncorrected.
        parts: Seconds of each part, uncorrected; ``steps`` first.
        correction: What earlier runs say.
        error: Relative, of the time; two numbers where it is not the same downwards and upwards.
        memory_error: The same, of memory.
        room: Bytes of memory that the run may take.
        room_of: Whose memory that is.
        predict: Another case -> its likely seconds and bytes.
        timed: What was timed, as JSON.
        notes: What else one should know.
        sources: Of a device's numbers.
        watts: Of a device.
    """

    how: How
    where: str
    kind: str
    case: Case
    need: MemoryNeed
    rows: Rows
    raw: Amounts
    parts: Mapping[str, float]
    correction: Correction
    error: tuple[float, float]
    memory_error: tuple[float, float]
    room: int
    room_of: str
    predict: Callable[[Case], tuple[float, float]]
    timed: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    watts: float | None = None

    @property
    def seconds(self) -> float:
        """Likely, corrected, of the whole run."""
        likely = self.correction.applied(self.raw)
        return (likely.step_seconds or 0.0) + (likely.other_seconds or 0.0)

    @property
    def memory_bytes(self) -> float:
        """Likely peak, corrected."""
        return self.correction.applied(self.raw).memory_bytes or 0.0


def kind_of(how: How, case: Case, device: str) -> str:
    """Name what runs are alike: one way to predict, one device, one way to hold and to compute."""
    recipe = case.recipe
    return f"{how} {device} {recipe.quantization.method} {recipe.engine.memory}"


def rows_of(data: PreparedData, *, guessed: bool) -> Rows:
    """Say what is learned from."""
    report = data.report.to_json()
    longest = max((one["tokens"] for one in report["longest"]), default=0)
    return Rows(
        len(data.train), len(data.validation), report["tokens"], report["histogram"], longest, guessed
    )


def span(likely: float, error: tuple[float, float]) -> Span:
    """Put an interval around a number."""
    return Span(likely * (1 - error[0]), likely, likely * (1 + error[1]))


def both_ways(*relative: float) -> tuple[float, float]:
    """Return the same error downwards and upwards."""
    error = min(combined(*relative), 0.9)
    return error, error
