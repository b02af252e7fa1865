"""Progress: lines with figures and time left, a bar on a terminal, and nothing that can stop a run."""

import io

import pytest
from rich.console import Console

from lora_kit.cli import progress
from lora_kit.cli.console import LastingConsole
from lora_kit.cli.progress import RichObserver
from lora_kit.train.observe import StepRecord


def record(step: int, validation_loss: float | None = None) -> StepRecord:
    return StepRecord(step, 0, 2.5, 1e-3, 0.7, 10, 40, ("r:1",), 0.5, 80.0, 1_500_000_000, validation_loss)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_outside_of_a_terminal(clock: list[float]) -> None:
    text = io.StringIO()
    observer = RichObserver(Console(file=text, width=200))
    observer.phase("loading the model")
    observer.started(step=2, steps=10, notes=["step-000004: manifest.json: missing"])
    clock[0] += 30
    observer.stepped(record(3))
    clock[0] += 30
    observer.stepped(record(4, validation_loss=2.25))
    observer.saved(4)
    lines = text.getvalue().splitlines()
    assert "· loading the model" in lines
    assert "  skipped step-000004: manifest.json: missing" in lines
    assert "  going on after step 2" in lines
    assert "  4/10  loss 2.5000  80 tokens/s  1.5 GB  3:00 left" in lines
    assert "  step 4: validation loss 2.2500" in lines
    assert "  step 4: checkpoint committed" in lines


def test_a_deadline_is_told(clock: list[float]) -> None:
    text = io.StringIO()
    observer = RichObserver(Console(file=text, width=200))
    observer.started(step=0, steps=10, notes=[])
    observer.planned(steps=6, seconds=95.0, ends="")
    clock[0] += 10
    observer.stepped(record(1))
    assert "  1/6  loss 2.5000  80 tokens/s  1.5 GB  deadline in 1:25  0:50 left" in text.getvalue()
    observer.planned(steps=5, seconds=85.0, ends="23:00")
    clock[0] += 10
    observer.stepped(record(2))
    assert "  2/5  loss 2.5000  80 tokens/s  1.5 GB  deadline 23:00 in 1:15  0:30 left" in text.getvalue()


def test_what_rows_share_is_told(clock: list[float]) -> None:
    text = io.StringIO()
    observer = RichObserver(Console(file=text, width=200))
    observer.started(step=0, steps=1, notes=[])
    observer.stepped(record(1)._replace(total_tokens=200, shared_tokens=50))
    assert "1.5 GB  25% shared" in text.getvalue()


def test_time_left_of_counted_work(clock: list[float]) -> None:
    text = io.StringIO()
    observer = RichObserver(Console(file=text, width=200))
    observer.progress(1, 101)
    clock[0] += 50
    observer.progress(51, 101)
    assert text.getvalue().splitlines()[-1] == "  51/101  0:50 left"
    observer.progress(101, 101)
    clock[0] += 50
    observer.progress(1, 3)
    assert text.getvalue().splitlines()[-1] == "  1/3"


def test_a_bar_on_a_terminal() -> None:
    text = io.StringIO()
    observer = RichObserver(Console(file=text, force_terminal=True, width=120))
    observer.started(step=0, steps=2, notes=[])
    observer.stepped(record(1))
    observer.close()
    assert "loss 2.5000" in text.getvalue()


def test_a_closed_pipe_is_no_reason_to_stop() -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    observer = RichObserver(LastingConsole(file=Closed(), width=80))
    observer.phase("on")
    observer.started(step=0, steps=1, notes=[])
    observer.stepped(record(1))
