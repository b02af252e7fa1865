"""One moment of a run for whoever watches it: figures, time left, and the curves of its loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_kit.artifacts.metrics_tail import MetricsTail
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.report.plots import smooth
from lora_kit.report.points import series
from lora_kit.report.runs.summary import RunSummary, summarise
from lora_kit.report.runs.text_plot import Curve
from lora_kit.report.wording import finite, median

RECENT = 20  # steps that speed and time left are told from


@dataclass(frozen=True, slots=True)
class Moment:
    """A run as it is now.

    Args:
        summary: How far it is.
        learning_rate: Of the last step.
        grad_norm: Of the last step, before clipping.
        tokens_per_second: Median of the last steps.
        peak_memory_bytes: Peak of the process so far.
        seconds_left: Steps that are left at the speed of the last ones; None if not known, or not at work.
        records: Its training log.
    """

    summary: RunSummary
    learning_rate: float | None
    grad_norm: float | None
    tokens_per_second: float | None
    peak_memory_bytes: int | None
    seconds_left: float | None
    records: Sequence[Mapping[str, Any]]

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.summary.state != "running"

    def curves(self) -> list[Curve]:
        """What to plot: the loss, its moving mean, and the held-out loss."""
        losses = series(self.records, "loss")
        return [
            Curve("training loss", losses, "bright_black", "."),
            Curve("moving mean", smooth(losses), "blue", "*"),
            Curve("held-out loss", series(self.records, "validation_loss"), "yellow", "o"),
        ]

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        return self.summary.to_json() | {
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            "tokens_per_second": self.tokens_per_second,
            "peak_memory_bytes": self.peak_memory_bytes,
            "seconds_left": self.seconds_left,
        }


class Watcher:
    """Looks at a run again and again, and reads only what is new.

    Args:
        run: Its directory.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._tail = MetricsTail(run.metrics)

    def look(self) -> Moment:
        """The run as it is now."""
        summary = summarise(self.run, self._tail.read())
        if summary.state != "running":  # it may have ended after its log was read
            summary = summarise(self.run, self._tail.read())
        records = self._tail.records
        last = records[-1] if records else {}
        peak = finite(last.get("peak_memory_bytes"))
        return Moment(
            summary,
            finite(last.get("learning_rate")),
            finite(last.get("grad_norm")),
            _recent(records, "tokens_per_second"),
            None if peak is None else int(peak),
            _seconds_left(summary, records),
            records,
        )


def _recent(records: Sequence[Mapping[str, Any]], key: str) -> float | None:
    return median([value for _, value in series(records[-RECENT:], key)])


def _seconds_left(summary: RunSummary, records: Sequence[Mapping[str, Any]]) -> float | None:
    pace = _recent(records, "seconds")
    if pace is None or summary.steps is None or summary.state != "running":
        return None
    return pace * max(summary.steps - summary.step, 0)
