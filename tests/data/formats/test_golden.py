"""Every format against golden files: rows as people publish them, and what they say, checked by hand.

A line of ``NAME.txt`` is ``origin [group] role: context | content``, texts as JSON; ``*``: it is trained.
"""

import json
from pathlib import Path

import pytest

from lora_kit.catalogue import FORMATS
from lora_kit.data.recognise import recognise
from lora_kit.data.sources import read_rows
from lora_kit.data.survey import file_spec, survey
from lora_kit.data.types import Conversation

GOLDEN = Path(__file__).parents[2] / "golden" / "formats"


@pytest.mark.parametrize("name", FORMATS)
def test_rows_say_what_the_golden_file_says(name: str) -> None:
    rows = list(read_rows(GOLDEN / f"{name}.jsonl"))
    lines = [line for row in rows for talk in FORMATS[name].convert(row) for line in told(talk)]
    assert lines == (GOLDEN / f"{name}.txt").read_text("utf-8").splitlines()
    assert recognise(rows, "rows")[0].name == name


REAL = {
    "alpaca_en_demo.json": ("alpaca", 999, 999, 14, {}),
    "litgpt_dolly_fixture.json": ("dolly", 12, 12, 0, {}),
    "fastchat_dummy_conversation.json": ("sharegpt", 500, 500, 0, {}),
    "en_100_tree.jsonl": ("openassistant", 100, 400, 0, {"trees": 100, "messages": 1167}),
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("file", REAL)
def test_every_row_of_real_files_is_accounted_for(shared_data: Path, file: str, *, named: bool) -> None:
    name, rows, conversations, duplicates, counts = REAL[file]
    found = survey(file_spec(shared_data / "train" / file, name if named else None), None)
    assert found["format"] == name
    assert (found["rows_read"], found["conversations"]) == (rows, conversations)
    assert found["duplicates"]["count"] == duplicates
    assert {key: found[key] for key in counts} == counts
    assert found["rows_read"] == found["rows_used"] + sum(one["count"] for one in found["dropped"].values())


def told(talk: Conversation) -> list[str]:
    group = f" [{talk.group}]" if talk.group else ""
    lines = []
    for message in talk.messages:
        parts = [json.dumps(part) for part in (message.context, message.content) if part]
        trained = "*" if message.role == "assistant" and message.train else ""
        lines.append(f"{talk.origin}{group} {message.role}{trained}: {' | '.join(parts)}")
    return lines


def test_every_format_has_golden_files() -> None:
    names = {path.stem for path in GOLDEN.iterdir()}
    assert names == set(FORMATS)
