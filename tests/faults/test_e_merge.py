"""Faults of a merge or an export: killed at every point of it (E2), too little room (E4)."""

import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.cli.app import run as command_line

POINTS = ["directory.before_manifest", "directory.after_manifest", "directory.after_rename"]


@pytest.fixture
def trained(tiny_recipe: Callable[..., Path], tmp_path: Path) -> Path:
    recipe = tiny_recipe(train={"steps": 2, "learning_rate": 0.02})
    assert command_line(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def in_child(argv: list[str], failpoint: str) -> int:
    """Run a command line in a forked process; minus the signal that ended it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.environ["LORA_KIT_FAILPOINT"] = failpoint
        os._exit(command_line(argv))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_e2_a_killed_merge_is_absent_or_complete_and_works_the_next_time(trained: Path) -> None:
    merge = ["merge", str(trained)]
    assert command_line([*merge, "--out", str(trained.parent / "good")]) == 0
    good = (trained.parent / "good/model.safetensors").read_bytes()
    for point in POINTS:
        assert in_child(merge, f"{point}=kill") == -signal.SIGKILL
        complete = point == "directory.after_rename"
        assert (trained / "merged").exists() == complete
        if not complete:
            assert command_line(merge) == 0
        assert (trained / "merged/model.safetensors").read_bytes() == good
        shutil.rmtree(trained / "merged")


def test_e2_a_killed_export_is_absent_or_complete_and_works_the_next_time(trained: Path) -> None:
    out = trained / "exports" / "gguf"
    export = ["export", str(trained), "--out", str(out), "--quant", "q4_0"]
    assert command_line(["merge", str(trained)]) == 0
    for point in POINTS:
        assert in_child(export, f"{point}=kill") == -signal.SIGKILL
        complete = point == "directory.after_rename"
        assert out.exists() == complete
        if not complete:
            assert command_line(export) == 0
        assert {path.name for path in out.iterdir()} >= {"certificate.json", "manifest.json"}
        assert len(list(out.glob("*.gguf"))) == 1
        shutil.rmtree(out)


def test_e4_too_little_room_is_told_before_anything_is_written(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 4321))
    assert command_line(["merge", str(trained)]) == 5
    errors = capsys.readouterr().err
    assert "no space left on device" in errors
    assert "4.3 kB free" in errors
    assert not [path for path in trained.iterdir() if "merged" in path.name]
