"""Folders in the cache are complete or absent; hashes are remembered until a file changes."""

import os
import threading
import time
from pathlib import Path

import pytest

from lora_kit.cache_place import cache_dir
from lora_kit.errors import MachineError
from lora_kit.model.cache import build_folder, remembered


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("LORA_KIT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "lora_kit"


def test_a_folder_is_built_once_by_whoever_comes_first(tmp_path: Path) -> None:
    started = []

    def fill(folder: Path) -> None:
        started.append(folder)
        time.sleep(0.05)
        assert not (tmp_path / "x" / "model").exists()
        (folder / "file").write_text("content")

    builders = [
        threading.Thread(target=build_folder, args=(tmp_path / "x" / "model", fill)) for _ in range(4)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(started) == 1
    assert (tmp_path / "x" / "model" / "file").read_text() == "content"


def test_what_a_killed_process_left_is_not_used(tmp_path: Path) -> None:
    leftover = tmp_path / ".tmp-model"
    leftover.mkdir()
    (leftover / "half").write_text("x")
    folder = build_folder(tmp_path / "model", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert not leftover.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError, KeyboardInterrupt])
def test_what_fails_halfway_takes_no_room(tmp_path: Path, error: BaseException) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_bytes(b"a")
        raise error

    with pytest.raises((MachineError, ValueError, KeyboardInterrupt)):
        build_folder(tmp_path / "cache" / "built", fill)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["built.lock"]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="LORA_KIT_CACHE"):
        build_folder(tmp_path / "file" / "model", lambda _: None)


def test_a_result_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    answers = iter("abc")

    def ask(purpose: str = "p") -> str:
        return remembered((file,), purpose, lambda: next(answers), cache=tmp_path / "cache")

    assert [ask(), ask()] == ["a", "a"]
    assert ask("q") == "b"
    file.write_text("two")  # same size
    os.utime(file, ns=(1, 1))
    assert ask() == "c"


def test_a_damaged_or_missing_memory_only_costs_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "hashes.json").write_text("{")
    assert remembered((file,), "p", lambda: "a", cache=tmp_path) == "a"
    assert remembered((file,), "p", lambda: "b", cache=file / "nowhere") == "b"
