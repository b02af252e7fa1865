import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_kit.data import strict_json
from lora_kit.data.strict_json import DEPTH_CAP, ROW_CAP_BYTES, jsonl_rows, list_rows
from lora_kit.data.types import Row
from lora_kit.errors import DataError, Problem

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ROWS = st.lists(st.dictionaries(st.text(), VALUES, max_size=5), max_size=8)


def lines(data: bytes) -> list[Row | Problem]:
    return list(jsonl_rows(io.BytesIO(data), "f.jsonl"))


def elements(data: bytes) -> list[Row | Problem]:
    return list(list_rows(io.BytesIO(data), "f.json"))


@given(rows=ROWS, ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 3]))
def test_what_json_writes_is_read_back_exactly(rows: list, ascii_only: bool, indent: int | None) -> None:
    listed = json.dumps(rows, ensure_ascii=ascii_only, indent=indent).encode()
    assert [row.fields for row in elements(listed)] == rows
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    assert [row.fields for row in lines(text.encode())] == rows


@settings(max_examples=50)
@given(rows=ROWS, block=st.integers(1, 40))
def test_where_blocks_of_the_stream_end_changes_nothing(rows: list, block: int) -> None:
    data = json.dumps(rows).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_BLOCK_BYTES", block)
        assert elements(data) == [Row(row, f"f.json:{number}") for number, row in enumerate(rows, 1)]


def test_origins_are_lines_and_elements() -> None:
    assert [row.origin for row in lines(b'{"a":1}\n\n \r\n{"a":2}\n')] == ["f.jsonl:1", "f.jsonl:4"]
    assert [row.origin for row in elements(b'[{"a":1},\n\n{"a":2}]')] == ["f.json:1", "f.json:2"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1, "a": 2}', "key 'a' appears twice"),
        (b'{"b": {"a": 1, "a": 1}}', "key 'a' appears twice"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": "caf\xe9"}', "byte 0xe9 at column 11 is not UTF-8"),
        ('{"é": "'.encode() + b'\xff"}', "byte 0xff at column 8 is not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "byte 0xed at column 8"),
        (b'{"a": 1', "not JSON: expecting ',' delimiter at column 9; the line ends too early"),
        (b'{"a": "one', "the line ends too early"),
        (b'{"a": 1} {"a": 2}', "not JSON: extra data at column 10"),
        (b"{", "write one object per line"),
        (b"12", "a row must be an object {...}, found a number"),
        (b"null", "found null"),
        (b'{"a": ' + b"1" * 5000 + b"}", "an integer of thousands of digits"),
        (b'{"a": "tab\tin text"}', "invalid control character"),
        (b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested more than 64 levels"),
        (b'{"a": "' + b"x" * ROW_CAP_BYTES + b'"}', "a row of more than 1,048,576 bytes"),
    ],
)
def test_a_broken_line_is_named_and_the_next_one_is_read(line: bytes, found: str) -> None:
    first, second, third = lines(b'{"x": 1}\n' + line + b"\n" + b'{"y": 1}')
    assert isinstance(second, Problem)
    assert second.where == "f.jsonl:2"
    assert found in str(second)
    assert (first.fields, third.fields, third.origin) == ({"x": 1}, {"y": 1}, "f.jsonl:3")


@pytest.mark.parametrize(
    ("data", "where", "found"),
    [
        (b'[{"a": 1}', "f.json:1", "the file ends before the list is closed"),
        (b'[{"a": 1}, {"a": ', "f.json:2", "the file ends in the middle of this element"),
        (b'[{"a": 1}, {"a": "x', "f.json:2", "the file ends in the middle of this element"),
        (b'[{"a": 1}, {"a": "x\\', "f.json:2", "the file ends in the middle of this element"),
        (b'[{"a": 1} {"a": 2}]', "f.json:1", "expected ',' or ']'"),
        (b'[{"a": 1},]', "f.json:2", "must be an object {...}, found ']'"),
        (b'[{"a": 1}, ', "f.json:2", "the file ends before the list is closed"),
        (b'["text"]', "f.json:1", "must be an object {...}, found '\"text\"]'"),
        (b"[[1]]", "f.json:1", "must be an object"),
        (b'[{"a": 1}] and more', "f.json:1", "text after the end of the list"),
        (b'[{"a": "' + b"x" * ROW_CAP_BYTES + b'"}]', "f.json:1", "a row of more than"),
        (b'[{"a": ' + b"[" * ROW_CAP_BYTES, "f.json:1", "nested more than 64"),
        (b"[", "f.json:1", "the file ends"),
    ],
)
def test_a_broken_list_names_the_element(data: bytes, where: str, found: str) -> None:
    with pytest.raises(DataError) as caught:
        elements(data)
    assert caught.value.problems[0].where == where
    assert found in str(caught.value)


def test_a_broken_element_of_a_good_list_is_a_problem_of_its_row() -> None:
    first, second, third = elements(b'[{"a": NaN}, {"a" 1}, {"a": "]}\\""}]')
    assert "NaN is not JSON" in str(first)
    assert "not JSON" in str(second)
    assert third == Row({"a": ']}"'}, "f.json:3")


def test_brackets_in_text_are_not_nesting() -> None:
    (row,) = lines(json.dumps({"a": "[" * 500}).encode())
    assert isinstance(row, Row)


def test_the_deepest_row_allowed_is_read() -> None:
    raw = b'{"a": ' + b"[" * (DEPTH_CAP - 1) + b"]" * (DEPTH_CAP - 1) + b"}"
    assert isinstance(lines(raw)[0], Row)
    assert isinstance(elements(b"[" + raw + b"]")[0], Row)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
def test_a_row_of_exactly_the_cap_is_read(ending: bytes) -> None:
    raw = b'{"a": "' + b"x" * (ROW_CAP_BYTES - 9 - len(ending[1:])) + b'"}'
    (row,) = lines(raw + ending)
    assert isinstance(row, Row)


def test_a_row_of_50_megabytes_is_refused_in_flat_memory() -> None:
    data = io.BytesIO(b'{"a": "' + b"x" * 50_000_000 + b'"}\n{"a": 1}\n')
    tracemalloc.start()
    problem, row = jsonl_rows(data, "f.jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "a row of more than" in str(problem)
    assert row == Row({"a": 1}, "f.jsonl:2")
    assert peak < 4 * ROW_CAP_BYTES


def test_a_long_list_is_read_in_flat_memory() -> None:
    data = io.BytesIO(b"[" + b",".join([b'{"a": "' + b"x" * 1000 + b'"}'] * 20_000) + b"]")
    tracemalloc.start()
    count = sum(1 for _ in list_rows(data, "f.json"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 6 * ROW_CAP_BYTES
