"""One process at a time in a folder of judgments, and what is cleared when it is taken."""

import json
import os

import pytest

from lora_kit.artifacts.folder_lock import folder_lock
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
