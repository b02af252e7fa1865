"""What a run's state is, from its files and its lock."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.artifacts.metrics_log import MetricsLog
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.errors import RecipeError
from lora_kit.report.runs.summary import bytes_of, find_run, runs_in, summarise


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDir]:
    def make(folder: str, *losses: float, **state: object) -> RunDir:
        run = open_run(tmp_path / "runs" / folder)
        log = MetricsLog(run.metrics)
        for step, loss in enumerate(losses, start=1):
            log.append({"step": step, "loss": loss, **({"validation_loss": loss + 1} if step == 2 else {})})
        log.close()
        run.update_state(**state)
        return run

    return make


@pytest.mark.parametrize(
    ("status", "at_work", "expected"),
    [
        ("created", False, "created"),
        ("created", True, "running"),
        ("running", True, "running"),
        ("running", False, "cut"),
        ("finished", False, "finished"),
        ("finished", True, "finished"),
        ("diverged", False, "diverged"),
    ],
)
def test_state(make_run: Callable[..., RunDir], status: str, at_work: bool, expected: str) -> None:
    run = make_run("a", 2.0, status=status)
    if not at_work:
        assert (summarise(run).state, summarise(run).owner) == (expected, None)
        return
    with run.lock():
        summary = summarise(run)
    assert summary.state == expected
    assert summary.owner.pid == os.getpid()


def test_figures(make_run: Callable[..., RunDir]) -> None:
    summary = summarise(make_run("a", 4.0, 3.0, 2.0, name="quick", status="running", steps=9))
    assert (summary.name, summary.step, summary.steps) == ("quick", 3, 9)
    assert (summary.loss, summary.validation_loss) == (2.0, 4.0)
    assert summarise(make_run("b", 4.0, status="finished", validation_loss=1.5)).validation_loss == 1.5
    empty = summarise(make_run("c"))
    assert (empty.step, empty.steps, empty.loss, empty.validation_loss) == (0, None, None, None)
    assert 0 <= empty.age < 600


@pytest.mark.parametrize("content", ["", "{", "[]", '{"steps": "many", "name": 7, "validation_loss": "x"}'])
def test_a_damaged_state_is_shown_not_raised(make_run: Callable[..., RunDir], content: str) -> None:
    run = make_run("a", 2.0)
    run.state.write_text(content)
    summary = summarise(run)
    assert summary.state == ("cut" if content.startswith('{"') else "damaged")
    assert (summary.step, summary.steps, summary.validation_loss) == (1, None, None)


def test_only_runs_are_listed(make_run: Callable[..., RunDir], tmp_path: Path) -> None:
    for name in ("b", "a"):
        make_run(name)
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "file").write_text("")
    (tmp_path / "runs" / "a").rename(tmp_path / "runs" / ".trash-a-1")
    assert [run.path.name for run in runs_in(tmp_path / "runs")] == ["b"]
    assert runs_in(tmp_path / "nothing") == []


def test_a_run_is_found_by_path_or_name(make_run: Callable[..., RunDir], tmp_path: Path) -> None:
    run = make_run("a")
    assert find_run("a", tmp_path / "runs") == find_run(str(run.path), Path("nowhere")) == run
    with pytest.raises(RecipeError, match=r"b: no such run; in .*: a$"):
        find_run("b", tmp_path / "runs")


def test_bytes_count_links_as_themselves(tmp_path: Path) -> None:
    (tmp_path / "run" / "sub").mkdir(parents=True)
    (tmp_path / "big").write_bytes(b"x" * 10_000)
    (tmp_path / "run" / "sub" / "a").write_bytes(b"x" * 100)
    (tmp_path / "run" / "link").symlink_to(tmp_path / "big")
    (tmp_path / "run" / "up").symlink_to(tmp_path)
    assert 100 <= bytes_of(tmp_path / "run") < 5000
