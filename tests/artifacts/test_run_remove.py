"""Removing a run: wholly, never through a link, never under a process that is at work."""

import os
from pathlib import Path

import pytest

from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.artifacts.run_remove import remove_run
from lora_kit.errors import MachineError, RecipeError, RunLockedError


def test_all_of_it_goes_and_nothing_beside_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("mine")
    run, other = open_run(tmp_path / "runs" / "a [1]*"), open_run(tmp_path / "runs" / "a")
    (run.path / "linked").symlink_to(outside)
    (run.path / "file").symlink_to(outside / "kept.txt")
    remove_run(run)
    assert (outside / "kept.txt").read_text() == "mine"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]
    assert other.is_run()


def test_a_link_to_a_run_is_refused_with_the_runs_own_place(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    (tmp_path / "link").symlink_to(run.path)
    with pytest.raises(RecipeError, match=f"remove the link, or the run itself: {run.path}"):
        remove_run(RunDir(tmp_path / "link"))
    assert run.is_run()


def test_a_run_at_work_is_refused(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    with run.lock(), pytest.raises(RunLockedError, match=f"process {os.getpid()}"):
        remove_run(run)
    assert run.is_run()
    remove_run(run)
    assert not run.path.exists()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(RecipeError, match="is not a run"):
        remove_run(RunDir(tmp_path / "mine"))
    assert (tmp_path / "mine").is_dir()


def test_a_rest_that_stays_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(tmp_path / "run")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(MachineError, match="can't be removed wholly"):
        remove_run(run)
    assert not run.path.exists()
