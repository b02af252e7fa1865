"""Whatever is written is complete or absent, with the mode that the umask asks for."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_kit.artifacts import commit
from lora_kit.artifacts.commit import (
    committed_dir,
    discard,
    failpoint,
    json_bytes,
    sweep,
    write_file,
    write_json,
)
from lora_kit.artifacts.manifest import read_manifest, verify_dir
from lora_kit.errors import MachineError


def arm(monkeypatch, value):
    monkeypatch.setenv("LORA_KIT_FAILPOINT", value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_undeclared_failpoint_is_our_mistake(monkeypatch):
    with pytest.raises(AssertionError, match="not declared"):
        failpoint("no.such.point")
    arm(monkeypatch, "no.such.point=kill")
    with pytest.raises(AssertionError, match="is not a failpoint"):
        failpoint("file.after_write")


def test_failpoint_counts_its_turns(monkeypatch):
    arm(monkeypatch, "file.after_write@3=raise, file.after_rename=erofs")
    failpoint("file.after_write")
    failpoint("file.after_write")
    with pytest.raises(RuntimeError, match=r"file\.after_write"):
        failpoint("file.after_write")
    failpoint("file.after_write")
    with pytest.raises(OSError, match="Read-only") as caught:
        failpoint("file.after_rename")
    assert caught.value.errno == errno.EROFS


def test_failpoint_sleeps(monkeypatch):
    slept = []
    monkeypatch.setattr(commit.time, "sleep", slept.append)
    arm(monkeypatch, "file.after_write=sleep:0.25,file.after_rename=sleep")
    failpoint("file.after_write")
    failpoint("file.after_rename")
    assert slept == [0.25, 1.0]


def test_failpoint_names_are_unique():
    assert len(set(commit.FAILPOINTS)) == len(commit.FAILPOINTS)


def test_write_file_replaces_whole_content(tmp_path):
    path = tmp_path / "a b ü.bin"
    write_file(path, b"first, and longer")
    write_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(tmp_path) == ["a b ü.bin"]


def test_write_file_never_writes_into_the_old_file(tmp_path):
    path, reader = tmp_path / "a", tmp_path / "link"
    write_file(path, b"old")
    os.link(path, reader)
    write_file(path, b"new")
    assert (path.read_bytes(), reader.read_bytes()) == (b"new", b"old")


@pytest.mark.parametrize("action", ["raise", "enospc"])
def test_write_file_keeps_the_old_content_when_it_fails(tmp_path, monkeypatch, action):
    path = tmp_path / "a.json"
    write_file(path, b"old")
    arm(monkeypatch, f"file.after_write={action}")
    with pytest.raises((RuntimeError, MachineError)):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_is_one_line_with_bytes_and_path(tmp_path, monkeypatch):
    arm(monkeypatch, "file.after_write=enospc")
    with pytest.raises(MachineError) as caught:
        write_file(tmp_path / "a.json", bytes(2_500_000))
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/a.json: no space left on device: 2.5 MB needed, ")
    assert " free; free some space" in line
    assert "\n" not in line


def test_a_missing_directory_is_not_made_again(tmp_path):
    with pytest.raises(MachineError, match="moved or deleted while in use"):
        write_file(tmp_path / "gone" / "a.json", b"")
    with pytest.raises(MachineError, match="moved or deleted"), committed_dir(tmp_path / "gone" / "b"):
        pass
    assert names(tmp_path) == []


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(MachineError, match="choose a shorter name"):
        write_file(tmp_path / ("x" * 300), b"")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_modes_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_json(tmp_path / "a.json", {})
        with committed_dir(tmp_path / "d") as part:
            write_json(part / "b.json", {})
    finally:
        os.umask(before)
    files = [tmp_path / "a.json", tmp_path / "d" / "b.json", tmp_path / "d" / "manifest.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {mode}
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o777 & ~mask


def test_json_is_strict_ordered_and_ends_its_line():
    assert json_bytes({"b": 1, "a": "ü"}) == '{\n  "b": 1,\n  "a": "ü"\n}\n'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"loss": float("nan")})


@settings(deadline=None)
@given(st.text(st.characters(codec=None)))
def test_any_text_survives_json(text):
    assert json.loads(json_bytes({text: text})) == {text: text}


def test_committed_dir_appears_whole_with_a_manifest(tmp_path):
    target = tmp_path / "step"
    with committed_dir(target, identity={"step": 3}) as part:
        (part / "sub").mkdir()
        (part / "sub" / "b").write_bytes(b"b")
        (part / "a").write_bytes(b"a")
        assert not target.exists()
    manifest = read_manifest(target)
    assert manifest["identity"] == {"step": 3}
    assert list(manifest["files"]) == ["a", "sub/b"]
    assert manifest["files"]["a"]["bytes"] == 1
    assert verify_dir(target) == []
    assert names(tmp_path) == ["step"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("exists", [True, False])
def test_committed_dir_leaves_nothing_of_a_failed_block(tmp_path, error, exists):
    target = tmp_path / "step"
    if exists:
        with committed_dir(target) as part:
            (part / "a").write_bytes(b"old")
    expected = MachineError if error is OSError else error
    with pytest.raises(expected), committed_dir(target) as part:  # noqa: PT012
        (part / "a").write_bytes(b"new")
        raise error
    assert names(tmp_path) == (["step"] if exists else [])
    assert not exists or (target / "a").read_bytes() == b"old"


@pytest.mark.parametrize("action", ["raise", "enospc"])
@pytest.mark.parametrize("point", ["before_manifest", "after_manifest", "after_old"])
def test_a_replaced_directory_comes_back_when_its_replacement_fails(tmp_path, monkeypatch, point, action):
    with committed_dir(tmp_path / "d") as part:
        (part / "a").write_bytes(b"old")
    arm(monkeypatch, f"directory.{point}={action}")
    with pytest.raises((RuntimeError, MachineError)), committed_dir(tmp_path / "d") as part:
        (part / "a").write_bytes(b"new")
    assert (tmp_path / "d" / "a").read_bytes() == b"old"
    assert verify_dir(tmp_path / "d") == []
    assert names(tmp_path) == ["d"]


def test_committed_dir_checks_the_room_before_it_writes(tmp_path):
    with (
        pytest.raises(MachineError, match=r"no space left on device: 1000000\.0 TB needed, .* free"),
        committed_dir(tmp_path / "d", needed_bytes=10**18),
    ):
        raise AssertionError("must not start")
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name an open file")
def test_everything_is_on_the_disk_before_the_rename_and_the_rename_after(tmp_path, monkeypatch):
    events = []
    real = Path.rename
    monkeypatch.setattr(os, "fsync", lambda number: events.append(Path(f"/proc/self/fd/{number}").readlink()))
    monkeypatch.setattr(Path, "rename", lambda self, to: (events.append("rename"), real(self, to)))
    with committed_dir(tmp_path / "d") as part:
        (part / "sub").mkdir()
        (part / "sub" / "a").write_bytes(b"a")
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert {part, part / "sub", part / "sub" / "a"} <= set(before)
    assert any("manifest.json" in path.name for path in before)
    assert after == [tmp_path]
    events.clear()
    write_file(tmp_path / "f", b"")
    assert [path.name for path in events] == [f".tmp-f-{os.getpid()}", tmp_path.name]
    events.clear()
    discard(tmp_path / "d")
    assert events == ["rename", tmp_path]


def test_discard_is_out_of_sight_before_it_deletes(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"a")
    arm(monkeypatch, "discard.after_trash=raise")
    with pytest.raises(RuntimeError):
        discard(tmp_path / "d")
    assert [name[:7] for name in names(tmp_path)] == [".trash-"]
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_sweep_clears_litter_and_puts_back_what_was_set_aside(tmp_path):
    for name in (
        ".tmp-step-000001-12",
        ".trash-step-000002-12",
        ".old-kept-12",
        ".old-replaced-12",
        "replaced",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / ".tmp-run.json-12").write_text("{")
    (tmp_path / "mine.txt").write_text("")
    sweep(tmp_path)
    assert names(tmp_path) == ["kept", "mine.txt", "replaced"]
    assert (tmp_path / "kept" / "file").read_text() == ".old-kept-12"
    assert (tmp_path / "replaced" / "file").read_text() == "replaced"
    sweep(tmp_path / "no such directory")
