import json

import pytest

from lora_kit.errors import MachineError
from lora_kit.harness.journal import key_of, open_journal


def test_what_is_added_is_found_again(tmp_path):
    path = tmp_path / "deep" / "answers.jsonl"
    with open_journal(path) as journal:
        assert journal.get("k") is None
        journal.add("k", {"text": "ä\n\ud800", "nats": 0.1 + 0.2})
    with open_journal(path) as journal:
        assert journal.get("k") == {"text": "ä\n\ud800", "nats": 0.1 + 0.2}
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("torn", [b'{"key": "b", "te', b"\xff\xfe", b'{"no": "key"}', b"[1]", b""])
def test_a_torn_last_line_is_skipped_and_nothing_is_glued_to_it(tmp_path, torn):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"key": "a", "text": "x"}\n' + torn)
    with open_journal(path) as journal:
        journal.add("c", {"text": "z"})
    with open_journal(path) as journal:
        assert (journal.get("a"), journal.get("b"), journal.get("c")) == ({"text": "x"}, None, {"text": "z"})


def test_it_is_on_disk_before_the_next_answer(tmp_path):
    with open_journal(tmp_path / "a.jsonl") as journal:
        journal.add("k", {"text": "x"})
        assert json.loads((tmp_path / "a.jsonl").read_text())["text"] == "x"


def test_without_a_path_it_is_only_memory(tmp_path):
    with open_journal(None) as journal:
        journal.add("k", {"text": "x"})
        assert journal.get("k") == {"text": "x"}


def test_numbers_that_are_no_numbers_are_refused(tmp_path):
    with open_journal(tmp_path / "a.jsonl") as journal, pytest.raises(ValueError):
        journal.add("k", {"nats": float("nan")})


def test_a_path_that_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError), open_journal(tmp_path / "file" / "answers.jsonl"):
        pass


def test_keys_depend_on_every_part():
    keys = {key_of("a", "b", 1), key_of("a", "b", 2), key_of("a", "c", 1), key_of("ab", 1), key_of("a", "b1")}
    assert len(keys) == 5
