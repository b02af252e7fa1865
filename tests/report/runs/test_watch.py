"""One moment of a run: its figures, and how long it has to go."""

from pathlib import Path

import pytest

from lora_kit.artifacts.metrics_log import MetricsLog
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.report.runs.watch import Watcher


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = open_run(tmp_path / "run")
    run.update_state(status="running", steps=50)
    return run


def write(run: RunDir, first: int, last: int, seconds: float = 2.0) -> None:
    log = MetricsLog(run.metrics)
    for step in range(first, last + 1):
        log.append({"step": step, "loss": 3.0 / step, "seconds": seconds, "tokens_per_second": 80.0})
    log.close()


def test_time_left_is_that_of_the_last_steps(run: RunDir) -> None:
    watcher = Watcher(run)
    with run.lock():
        assert watcher.look().seconds_left is None
        write(run, 1, 5, seconds=100.0)
        write(run, 6, 30)
        moment = watcher.look()
    assert moment.seconds_left == 40.0
    assert (moment.tokens_per_second, moment.summary.step, moment.is_over) == (80.0, 30, False)
    assert [len(curve.points) for curve in moment.curves()] == [30, 30, 0]
    assert watcher.look().is_over
    assert watcher.look().seconds_left is None


def test_the_last_steps_of_a_run_that_ends_are_seen(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may write its last lines after its log is read and before its state is."""
    from lora_kit.report.runs import watch

    write(run, 1, 49)
    look = watch.summarise

    def end_meanwhile(*parts: object) -> object:
        if run.read_state()["status"] == "running":
            write(run, 50, 50)
            run.update_state(status="finished")
        return look(*parts)

    monkeypatch.setattr(watch, "summarise", end_meanwhile)
    moment = Watcher(run).look()
    assert (moment.summary.state, moment.summary.step) == ("finished", 50)
