import csv
import gzip
import io
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.data.sources import read_rows
from lora_kit.data.strict_json import ROW_CAP_BYTES
from lora_kit.data.tables import csv_rows
from lora_kit.data.types import Row
from lora_kit.errors import DataError, Problem

CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
HEADERS = st.lists(CELLS.filter(str.strip), min_size=2, max_size=4, unique=True)


def parsed(data: bytes) -> list[Row | Problem]:
    return list(csv_rows(io.BytesIO(data), "t.csv"))


@given(header=HEADERS, data=st.data(), ending=st.sampled_from(["\n", "\r\n"]), mark=st.booleans())
def test_what_csv_writes_is_read_back_exactly(
    header: list[str], data: st.DataObject, ending: str, mark: bool
) -> None:
    records = data.draw(st.lists(st.lists(CELLS, min_size=len(header), max_size=len(header)), max_size=5))
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows([header, *records])
    rows = parsed(b"\xef\xbb\xbf" * mark + text.getvalue().encode())
    assert [row.fields for row in rows] == [dict(zip(header, record, strict=True)) for record in records]


def test_cells_are_text_and_nothing_else() -> None:
    (row,) = parsed(b'a,b,c,d,e\n=1+1,@cmd,2024-01-01,,"1,5\nNaN"\n')
    assert row == Row({"a": "=1+1", "b": "@cmd", "c": "2024-01-01", "d": "", "e": "1,5\nNaN"}, "t.csv:2")


def test_origins_are_the_lines_that_records_start_on() -> None:
    rows = parsed(b'a,b\n1,"x\ny\nz"\n\n2,w\n')
    assert [row.origin for row in rows] == ["t.csv:2", "t.csv:6"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a,b\n1\n", "t.csv:2: 1 cells, but the header has 2"),
        (b"a,b\n1,2,3\n", "t.csv:2: 3 cells, but the header has 2"),
        (b'a,b\n"' + b"x\n" * 300_000 + b'","' + b"x\n" * 300_000 + b'"\n', "t.csv:2: a row of more than"),
    ],
)
def test_a_broken_record_is_a_problem_and_the_next_one_is_read(data: bytes, problem: str) -> None:
    first, *rest = parsed(data + b"3,4\n")
    assert str(first).startswith(problem)
    assert [row.fields for row in rest] == [{"a": "3", "b": "4"}]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'a,b\n1,2\n"x"y,2\n', "t.csv:3: not CSV"),
        (b'a,b\n1,2\n"never closed,2\n', "t.csv:3: not CSV"),
        (b"a,a\n1,2\n", "t.csv:1: two columns are named 'a'"),
        (b"a, \n1,2\n", "t.csv:1: column 2 has no name"),
        (b"a;b\n1;2\n", "t.csv:1: cells must be separated by commas"),
        (b"a,b\n1,caf\xe9\n", "t.csv:2: byte 0xe9 at column 6 is not UTF-8"),
        (b"a,b\n1," + b"x" * 3_000_000 + b"\n", "t.csv:2: a row of more than"),
        (b'a,b\n1,"' + b"x\n" * ROW_CAP_BYTES + b'"\n', "t.csv:2: not CSV: field larger than"),
    ],
)
def test_a_broken_file_names_the_line(data: bytes, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        parsed(data)
    assert str(caught.value).startswith(problem)


def write_parquet(path: Path, table: pa.Table, **options: object) -> Path:
    pq.write_table(table, path, **options)
    return path


def test_parquet_gives_values_as_they_are_stored(tmp_path: Path) -> None:
    rows = [{"text": f"=SUM({n})", "turns": [{"role": "user", "content": None}], "n": n} for n in range(70)]
    path = write_parquet(tmp_path / "t.parquet", pa.Table.from_pylist(rows), row_group_size=20)
    assert list(read_rows(path)) == [Row(row, f"t.parquet:{n}") for n, row in enumerate(rows, 1)]
    assert [row.origin for row in read_rows(path, limit=2)] == ["t.parquet:1", "t.parquet:2"]


def test_a_parquet_date_stays_a_date_for_the_format_to_refuse(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", pa.table({"output": [date(2024, 1, 1)]}))
    assert next(read_rows(path)).fields == {"output": date(2024, 1, 1)}


def test_a_huge_value_in_a_dictionary_is_a_problem_of_its_rows(tmp_path: Path) -> None:
    table = pa.table({"output": ["x" * 2_000_000, "fine", "x" * 2_000_000] * 40})
    path = write_parquet(tmp_path / "t.parquet", table, use_dictionary=True, compression="zstd")
    problems: list[Problem] = []
    rows = list(read_rows(path, on_problem=problems.append))
    assert len(rows) == 40
    assert len(problems) == 80
    assert str(problems[1]).startswith("t.parquet:3: a row of more than")


def test_parquet_text_that_is_not_utf8_names_its_row(tmp_path: Path) -> None:
    bad = pa.array([b"ok", b"\xff", b"ok"], pa.binary()).view(pa.string())
    problems: list[Problem] = []
    path = write_parquet(tmp_path / "t.parquet", pa.table({"output": bad}))
    assert len(list(read_rows(path, on_problem=problems.append))) == 2
    assert [str(problem) for problem in problems] == ["t.parquet:2: byte 0xff is not UTF-8"]


def test_a_damaged_parquet_file_is_a_data_error(tmp_path: Path) -> None:
    whole = write_parquet(
        tmp_path / "t.parquet", pa.table({"output": ["x" * 50] * 200}), compression="none"
    ).read_bytes()
    path = tmp_path / "d.parquet"
    for damaged in (
        whole[:100],
        whole[:-1],
        whole[:8] + whole[-8:],
        b"PAR1",
        whole[:4] + b"\xff" * 300 + whole[304:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"d\.parquet: damaged Parquet data"):
            list(read_rows(path))
    path.write_bytes(whole.replace(b"output", b"out\xffut"))
    with pytest.raises(DataError, match=r"d\.parquet: damaged Parquet data"):
        list(read_rows(path))
    path.write_bytes(b'{"a": 1}\n')
    with pytest.raises(DataError, match="this is not a Parquet file"):
        list(read_rows(path))
    path.write_bytes(b"version https://git-lfs.github.com")
    with pytest.raises(DataError, match="a Git LFS pointer"):
        list(read_rows(path))


def test_columns_of_one_name_and_giant_row_groups_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["x", "x"])
    with pytest.raises(DataError, match="two columns are named 'x'"):
        list(read_rows(write_parquet(tmp_path / "t.parquet", twice)))
    monkeypatch.setattr("lora_kit.data.tables._ROW_GROUP_CAP_BYTES", 10)
    with pytest.raises(DataError, match="row group 1 holds more than 10 bytes"):
        list(read_rows(write_parquet(tmp_path / "t.parquet", pa.table({"x": ["a" * 99]}))))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_gzip_is_unpacked_on_the_way(name: str, tmp_path: Path) -> None:
    texts = {"a.jsonl": b'{"x": "1"}\n', "a.json": b'[{"x": "1"}]', "a.csv": b"x\n1\n"}
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(texts[name]))
    (row,) = read_rows(path)
    assert row.fields == {"x": "1"}
    assert row.origin.startswith(f"{name}.gz:")


def test_gzip_that_is_none_or_broken_or_holds_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b'{"x": "1"}\n' * 1000, mtime=0)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    for content, found in [
        (b'{"x": 1}', "this is not a gzip file; name it without .gz"),
        (b"", "the file is empty"),
        (gzip.compress(b"", mtime=0), "the file is empty"),
        (whole[:20], "broken gzip data"),
        (whole[:-3], "broken gzip data"),
        (bytes(damaged), "broken gzip data"),
        (b"\x1f\x8b\x00\x00", "broken gzip data"),
        (gzip.compress(whole, mtime=0), "this is a gzip file"),
        (gzip.compress(b"<html>", mtime=0), "a web page"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=found):
            list(read_rows(path))


def test_a_gzip_bomb_is_one_row_above_the_cap(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"x": "' + b"0" * 100_000_000, compresslevel=1))
    problems: list[Problem] = []
    assert list(read_rows(path, on_problem=problems.append)) == []
    assert "a row of more than" in str(problems[0])
