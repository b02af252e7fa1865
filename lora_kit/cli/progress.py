"""Shows a run while it goes: loss, speed, time left and memory, as a bar or, outside a terminal, as lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lora_kit.cli.console import messages
from lora_kit.train.observe import StepRecord

LINE_EVERY_SECONDS = 10.0


class RichObserver:
    """An observer on a rich console; a closed terminal or pipe never stops the run.

    Args:
        console: Where to show it (standard error, so that results can be piped).
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.last_line = 0.0
        self.began = 0.0
        self.first = 0
        self.steps = 0
        self.counting = False
        self.end: float | None = None  # of a deadline
        self.ends = ""

    def phase(self, text: str) -> None:
        """Say which part of the work begins."""
        self._close()
        self._say(f"· {text}")

    def noted(self, text: str) -> None:
        """Say what happened, above the bar."""
        self._say(f"  {text}")

    def started(self, *, step: int, steps: int, notes: list[str]) -> None:
        """Open the bar."""
        for note in notes:
            self._say(f"  skipped {note}")
        if step:
            self._say(f"  going on after step {step}")
        self.first, self.steps, self.began = step, steps, time.monotonic()
        self._open("training", done=step, total=steps)

    def planned(self, *, steps: int, seconds: float, ends: str) -> None:
        """Take over the steps and the end of a deadline."""
        self.steps, self.end, self.ends = steps, time.monotonic() + seconds, ends and f"{ends} "
        if self.bar is not None:
            with suppress(OSError):
                self.bar.update(self.task, total=steps)

    def stepped(self, record: StepRecord) -> None:
        """Show a step."""
        text = (
            f"loss {record.loss:.4f}  {record.tokens_per_second:.0f} tokens/s  "
            f"{record.peak_memory_bytes / 1e9:.1f} GB"
        )
        if record.shared_tokens:
            text += f"  {record.shared_tokens / record.total_tokens:.0%} shared"
        if record.validation_loss is not None:
            self._say(f"  step {record.step}: validation loss {record.validation_loss:.4f}")
        if self.end is not None:
            rest = max(0, int(self.end - time.monotonic()))
            text += f"  deadline {self.ends}in {rest // 60}:{rest % 60:02d}"
        self._advance(record.step, text, self._eta(record.step))

    def saved(self, step: int) -> None:
        """Say that a checkpoint is committed."""
        if not self.console.is_terminal:
            self._say(f"  step {step}: checkpoint committed")

    def progress(self, done: int, total: int) -> None:
        """Show counted work outside of training."""
        if not self.counting:
            self.counting = True  # the first call comes when something is done: time counts from there
            self.first, self.steps, self.began = done, total, time.monotonic()
            self._open("working", done=done, total=total)
        self._advance(done, "", self._eta(done))
        if done >= total:
            self._close()

    def close(self) -> None:
        """Take the bar away."""
        self._close()

    def _eta(self, done: int) -> str:
        if done <= self.first:
            return ""
        left = (time.monotonic() - self.began) / (done - self.first) * (self.steps - done)
        return f"{int(left // 60)}:{int(left % 60):02d} left"

    def _open(self, text: str, *, done: int, total: int) -> None:
        if not self.console.is_terminal:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with suppress(OSError):
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.bar.start()
            self.task = self.bar.add_task(text, total=total, completed=done, figures="")

    def _advance(self, done: int, figures: str, eta: str) -> None:
        if self.bar is not None:
            with suppress(OSError):
                self.bar.update(self.task, completed=done, figures=figures)
            return
        now = time.monotonic()
        if now - self.last_line >= LINE_EVERY_SECONDS or done == self.steps:
            self.last_line = now
            self._say("  " + "  ".join(part for part in (f"{done}/{self.steps}", figures, eta) if part))

    def _close(self) -> None:
        self.counting = False
        if self.bar is not None:
            with suppress(OSError):
                self.bar.stop()
            self.bar = None

    def _say(self, text: str) -> None:
        with suppress(OSError):
            self.console.print(text, markup=False, highlight=False)


@contextmanager
def observing() -> Iterator[RichObserver]:
    """Show progress on standard error for the block, and leave no bar behind."""
    observer = RichObserver(messages)
    try:
        yield observer
    finally:
        observer.close()
