"""What a run tells while it goes: plain events, so that the loop prints nothing itself."""

from typing import NamedTuple, Protocol


class StepRecord(NamedTuple):
    """One line of metrics.jsonl.

    Args:
        step: Optimizer step, from 1.
        epoch: Pass over the rows, from 0.
        loss: Nats per trained token, before the update.
        learning_rate: Rate of this update.
        grad_norm: Global norm before clipping.
        trained_tokens: Targets in the window.
        total_tokens: Tokens in the window.
        rows: Origins of the window's rows.
        seconds: Wall-clock time of the step, validation and saving aside.
        tokens_per_second: total_tokens / seconds.
        peak_memory_bytes: Peak of the process so far.
        validation_loss: Nats per trained token on held-out rows, where it was measured.
        shared_tokens: Tokens of ``total_tokens`` that were computed with another row's.
        lowered_to: Most tokens at once after a failed allocation in this step; 0 if there was none.
        row_nats: Nats of each of ``rows``, before the update, dropout as in training.
        row_tokens: Targets of each.
        spike: How many times the median of the steps before the loss is, where that is a spike; else 0.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    grad_norm: float
    trained_tokens: int
    total_tokens: int
    rows: tuple[str, ...]
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    validation_loss: float | None = None
    shared_tokens: int = 0
    lowered_to: int = 0
    row_nats: tuple[float, ...] = ()
    row_tokens: tuple[int, ...] = ()
    spike: float = 0.0

    def to_json(self) -> dict[str, object]:
        """The record as JSON; the last fields only where they say something."""
        fields = self._asdict()
        if self.validation_loss is None:
            del fields["validation_loss"]
        for name in ("shared_tokens", "lowered_to", "row_nats", "row_tokens", "spike"):
            if not fields[name]:
                del fields[name]
        return fields


class Observer(Protocol):
    """Whoever shows a run's progress."""

    def phase(self, text: str) -> None:
        """A part of the work before or after the steps begins."""

    def noted(self, text: str) -> None:
        """Something happened that one should know."""

    def started(self, *, step: int, steps: int, notes: list[str]) -> None:
        """Training goes on after ``step`` of ``steps``; ``notes`` say which checkpoints were skipped."""

    def planned(self, *, steps: int, seconds: float, ends: str) -> None:
        """A deadline allows ``steps`` steps; it is ``seconds`` away, at ``ends`` if that was asked."""

    def stepped(self, record: StepRecord) -> None:
        """A step was made."""

    def saved(self, step: int) -> None:
        """A checkpoint was committed."""

    def progress(self, done: int, total: int) -> None:
        """Some of a counted amount of work outside of the steps is done."""


class Silent:
    """An observer that shows nothing."""

    def phase(self, text: str) -> None:
        """Ignore it."""

    def noted(self, text: str) -> None:
        """Ignore it."""

    def started(self, *, step: int, steps: int, notes: list[str]) -> None:
        """Ignore it."""

    def planned(self, *, steps: int, seconds: float, ends: str) -> None:
        """Ignore it."""

    def stepped(self, record: StepRecord) -> None:
        """Ignore it."""

    def saved(self, step: int) -> None:
        """Ignore it."""

    def progress(self, done: int, total: int) -> None:
        """Ignore it."""
