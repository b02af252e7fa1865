"""One directory, one run, one process."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_kit.artifacts.run_dir import open_run
from lora_kit.errors import MachineError, ModelError, RecipeError, RunLockedError


def test_a_new_run_has_its_places_and_state(tmp_path):
    run = open_run(tmp_path / "deep" / "run")
    assert run.read_state() == {"format_version": 1, "name": "run", "status": "created"}
    assert run.checkpoints.is_dir()
    assert run.is_run()
    files = (
        run.recipe,
        run.data_report,
        run.metrics,
        run.adapter,
        run.merged,
        run.report_html,
        run.report_md,
    )
    assert [path.name for path in files] == [
        "recipe.yaml", "data_report.json", "metrics.jsonl", "adapter", "merged", "report.html", "report.md",
    ]  # fmt: skip
    assert all(path.parent == run.path for path in (*files, run.evaluations))


def test_opening_again_changes_nothing(run):
    def times():
        return {path: path.stat().st_mtime_ns for path in (run.path, *run.path.rglob("*"))}

    before = times()
    assert open_run(run.path) == open_run(run.path, create=False) == run
    run.update_state(status="created")
    assert times() == before


def test_state_keeps_what_it_does_not_change(run):
    run.update_state(status="running", note="ü")
    run.update_state(status="finished")
    assert run.read_state() == {"format_version": 1, "name": "run", "status": "finished", "note": "ü"}
    run.state.write_bytes(b"")
    with pytest.raises(ModelError, match=r"run\.json: is not JSON"):
        run.update_state(status="running")


@pytest.mark.fault("A13")
def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RecipeError, match="not empty and not a lora_kit run"):
        open_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RecipeError, match="is a file"):
        open_run(tmp_path / "thesis.tex")


@pytest.mark.parametrize("place", ["/", ".", "~"])
@pytest.mark.fault("A13")
def test_root_home_and_current_directory_are_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RecipeError, match=r"not a place for a run|not empty and not"):
        open_run(Path(place).expanduser())


def test_a_run_may_be_opened_from_within(run, monkeypatch):
    monkeypatch.chdir(run.path)
    assert open_run(Path()) == run


def test_without_create_it_must_be_there(tmp_path):
    with pytest.raises(RecipeError, match=r"no such run directory; start one with: lora-kit train"):
        open_run(tmp_path / "run", create=False)
    with pytest.raises(RecipeError, match="is not a run of lora_kit"):
        open_run(tmp_path, create=False)
    assert not (tmp_path / "run").exists()


def test_what_a_kill_at_the_very_start_leaves_is_taken_up(tmp_path, monkeypatch):
    for point in ("run.after_create", "file.after_write"):
        monkeypatch.setenv("LORA_KIT_FAILPOINT", f"{point}=raise")
        with pytest.raises(RuntimeError):
            open_run(tmp_path / "run")
    (tmp_path / "run" / ".tmp-run.json-12").write_text("{")
    monkeypatch.delenv("LORA_KIT_FAILPOINT")
    run = open_run(tmp_path / "run")
    with run.lock():
        assert not list(run.path.glob(".tmp-*"))


def test_the_lock_names_its_owner(run):
    with run.lock():
        owner = json.loads(run.lock_file.read_text())
        assert owner["pid"] == os.getpid()
        with pytest.raises(RunLockedError) as caught, run.lock():
            pass
        assert caught.value.exit_code == 10
        expected = (
            f"{run.path}: in use by process {owner['pid']} on {owner['host']} since {owner['started']}; wait"
        )
        assert str(caught.value).startswith(expected)
    with run.lock():
        pass


def test_the_lock_holds_against_another_process_and_falls_with_it(run):
    script = (
        "import fcntl, os, sys, time\n"
        "d = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(d, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, run.lock_file], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(RunLockedError, match="in use by another process"), run.lock():
            pass
        other.kill()
        other.wait()
        with run.lock():
            assert json.loads(run.lock_file.read_text())["pid"] == os.getpid()


def test_a_file_system_without_locks_is_said_so(run, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(MachineError, match="no file locks; choose a --run-dir on a local disk"), run.lock():
        pass


def test_locking_clears_litter_everywhere(run):
    (run.evaluations / "quickstart").mkdir()
    places = (run.path, run.checkpoints, run.evaluations, run.evaluations / "quickstart")
    for place in places:
        (place / ".tmp-x-1").write_text("")
    with run.lock():
        assert not list(run.path.rglob(".tmp-*"))
