import gzip
import os
import socket
from pathlib import Path

import pytest

from lora_kit.data.sources import read_rows, source_sha256
from lora_kit.data.types import Row
from lora_kit.errors import DataError, MachineError, Problem

ROWS = [{"instruction": "a", "output": "ä\u2028b"}, {"instruction": "2024-01-01", "output": "NaN"}]


def test_jsonl_and_json_give_the_same_rows_with_their_own_origins(write_rows) -> None:
    as_lines, as_list = write_rows(ROWS, "a.jsonl"), write_rows(ROWS, "a.json")
    assert list(read_rows(as_lines)) == [Row(row, f"a.jsonl:{n}") for n, row in enumerate(ROWS, 1)]
    assert list(read_rows(as_list)) == [Row(row, f"a.json:{n}") for n, row in enumerate(ROWS, 1)]


def test_a_json_file_of_one_object_per_line_is_read_by_line(write_rows, tmp_path: Path) -> None:
    write_rows(ROWS, "a.jsonl").rename(tmp_path / "a.json")
    assert [row.origin for row in read_rows(tmp_path / "a.json")] == ["a.json:1", "a.json:2"]


def test_text_that_looks_like_a_date_stays_text(write_rows) -> None:
    rows = [{"instruction": "when?", "output": "2024-01-01"}] * 3
    assert [row.fields for row in read_rows(write_rows(rows))] == rows


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_limit_takes_the_first_rows_and_reads_no_further(name: str, write_rows) -> None:
    path = write_rows(ROWS, name)
    path.write_bytes(path.read_bytes().rstrip(b"]\n") + b'{"broken')
    assert [row.fields for row in read_rows(path, limit=1)] == ROWS[:1]


def test_broken_rows_are_handed_over_in_their_place_or_raised(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": NaN}\n{"a": 2}\n')
    problems: list[Problem] = []
    assert [row.fields["a"] for row in read_rows(path, on_problem=problems.append)] == [1, 2]
    assert [problem.where for problem in problems] == ["a.jsonl:2"]
    with pytest.raises(DataError, match=r"^a\.jsonl:2: NaN is not JSON$"):
        list(read_rows(path))


def test_origins_can_carry_another_name(write_rows) -> None:
    assert next(read_rows(write_rows(ROWS), name="train/x.jsonl")).origin == "train/x.jsonl:1"


@pytest.mark.parametrize(
    ("head", "look"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "Git LFS pointer, not the data; run `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\xef\xbb\xbf\n  <HTML>", "a web page"),
        (b"PK\x03\x04rest", "a zip archive"),
        (gzip.compress(b'{"a": 1}', mtime=0), "a gzip file; name it .gz"),
        (b"PAR1\x15\x04", "a Parquet file; name it .parquet"),
        (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
        (b"\xfd7zXZ\x00", "an xz file"),
        (b"BZh91AY", "a bzip2 file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\xff\xfe{\x00", "UTF-16 text; save it as UTF-8"),
        (b"\x00\x00\x00", "binary data"),
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf\r\n \n", "the file is empty"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_what_is_not_text_is_named(head: bytes, look: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(head)
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert look in str(caught.value)
    assert str(path) in str(caught.value)


def test_pipes_sockets_devices_and_folders_never_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "link.jsonl").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.jsonl"))
        for name, look in [("pipe", "a pipe"), ("folder", "folder"), ("link", "a device"), ("s", "a socket")]:
            with pytest.raises(DataError, match=look):
                list(read_rows(tmp_path / f"{name}.jsonl"))


def test_a_missing_file_suggests_its_neighbour(write_rows, tmp_path: Path) -> None:
    write_rows(ROWS, "train.jsonl")
    with pytest.raises(DataError, match=r"no such file; did you mean 'train\.jsonl'\?"):
        list(read_rows(tmp_path / "trian.jsonl"))
    with pytest.raises(DataError, match="there is no folder"):
        list(read_rows(tmp_path / "no" / "train.jsonl"))
    with pytest.raises(DataError, match="no such file"):
        list(read_rows(tmp_path / "a\0.jsonl"))


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"unknown kind of file '\.xlsx'; known: \.jsonl, \.json"):
        list(read_rows(tmp_path / "rows.xlsx"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_the_machines_fault(write_rows) -> None:
    path = write_rows(ROWS)
    path.chmod(0)
    with pytest.raises(MachineError, match="permission denied"):
        list(read_rows(path))


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"abc")
    assert source_sha256(tmp_path / "a.jsonl").startswith("ba7816bf8f01cfea")


def test_a_folder_is_its_data_files_by_name(write_rows, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    (folder / "deeper").mkdir(parents=True)
    for name in ("rows/b.json", "rows/a.jsonl", "rows/deeper/c.jsonl", "rows/.hidden.jsonl"):
        write_rows(ROWS, name)
    (folder / "README.md").write_text("about")
    origins = [row.origin for row in read_rows(folder)]
    assert origins == ["rows/a.jsonl:1", "rows/a.jsonl:2", "rows/b.json:1", "rows/b.json:2"]
    assert len(list(read_rows(folder, limit=3))) == 3


def test_the_hash_of_a_folder_follows_names_and_contents(write_rows, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    first = write_rows(ROWS, "rows/a.jsonl")
    hashes = [source_sha256(tmp_path / "rows")]
    write_rows(ROWS[:1], "rows/a.jsonl")
    hashes.append(source_sha256(tmp_path / "rows"))
    first.rename(tmp_path / "rows" / "b.jsonl")
    hashes.append(source_sha256(tmp_path / "rows"))
    assert len(set(hashes)) == 3


def test_a_folder_without_data_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data files in this folder; known kinds"):
        list(read_rows(tmp_path))
