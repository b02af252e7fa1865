"""One process at a time in a folder of judgments, and what is cleared when it is taken."""

import json
import os
import socket

import pytest

from lora_kit.artifacts.folder_lock import folder_lock, held, holder
from lora_kit.errors import MachineError, RunLockedError
from lora_kit.harness.journal import open_journal


def test_the_second_is_told_who_holds_it(tmp_path):
    folder = tmp_path / "new" / "folder"
    with folder_lock(folder):
        assert json.loads((folder / ".lock").read_text())["pid"] == os.getpid()
        with (
            pytest.raises(RunLockedError, match=f"in use by process {os.getpid()} .*another --out") as caught,
            folder_lock(folder),
        ):
            pytest.fail("two at once")
        assert caught.value.exit_code == 10
    with folder_lock(folder):
        pass


def test_litter_of_a_killed_process_is_cleared(tmp_path):
    (tmp_path / ".tmp-results.json-1").write_text("{")
    with folder_lock(tmp_path):
        assert not list(tmp_path.glob(".tmp-*"))


def test_a_place_that_can_not_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError), folder_lock(tmp_path / "file" / "folder"):
        pass


def test_a_journal_has_one_writer(tmp_path):
    path = tmp_path / "answers.jsonl"
    with open_journal(path) as journal:
        journal.add("k", {"text": "a"})
        with pytest.raises(RunLockedError, match="in use by another process"), open_journal(path):
            pass
    with open_journal(path) as journal:
        assert journal.get("k") == {"text": "a"}


def test_the_holder_is_named_while_it_holds_and_looking_never_locks(tmp_path):
    file = tmp_path / ".lock"
    assert holder(file) is None
    with held(file, option="--out"):
        owner = holder(file)
        assert (owner.pid, owner.host) == (os.getpid(), socket.gethostname())
    assert holder(file) is None
    with held(file, option="--out"):
        pass


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "x", "host": "h", "started": "s"}', "\x00"])
def test_a_lock_file_that_names_nobody_has_no_holder(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    assert holder(tmp_path / ".lock") is None


def test_a_dead_process_holds_nothing_and_its_lock_is_not_tried(tmp_path, monkeypatch):
    owner = {"pid": 2**22 + 5, "host": socket.gethostname(), "started": "then"}
    (tmp_path / ".lock").write_text(json.dumps(owner))
    monkeypatch.setattr("fcntl.flock", lambda *_: pytest.fail("a run that starts now would be kept out"))
    assert holder(tmp_path / ".lock") is None
