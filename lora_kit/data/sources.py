"""A file or a folder on disk -> rows with their origin (``dolly-15k.jsonl:412``), one at a time.

What a file is, its name says and its first bytes confirm; nothing is guessed
about the values. Rows that are broken come out as problems in their place, so
that all of them can be shown at once or counted; a broken file raises.
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from lora_kit.data.sniff import open_regular, open_rows
from lora_kit.data.strict_json import jsonl_rows, list_rows
from lora_kit.data.tables import csv_rows, parquet_rows
from lora_kit.data.types import Row
from lora_kit.errors import DataError, Problem

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")


def read_rows(
    path: Path,
    *,
    limit: int | None = None,
    name: str = "",
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Row]:
    """Read the rows of a file, or of the files in a folder by name, in order and in bounded memory.

    Args:
        path: A file with one of `SUFFIXES`, or a folder of such files (folders in it are not entered).
        limit: Stop after so many rows, broken ones included.
        name: What origins call the file or folder; its own name if empty.
        on_problem: Called for each broken row, which is then left out.

    Raises:
        DataError: No such file, not what its name says, or (without `on_problem`) a broken row.
        MachineError: The file can't be read.
    """
    for item in islice(_items(path, name or path.name), limit):
        if isinstance(item, Row):
            yield item
        elif on_problem is None:
            raise DataError.collect([item])
        else:
            on_problem(item)


def source_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes; for a folder, of the names and hashes of its data files."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in data_files(path):
            digest.update(f"{source_sha256(file)}  {file.name}\n".encode())
        return digest.hexdigest()
    with open_regular(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def refuse_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare what two data reports say they were read from, when a run goes on.

    Args:
        before: The report that the run began with; empty if it left none.
        now: The report of the same recipe, made again.

    Raises:
        DataError: A source has another content or another commit now; each is named.
    """
    cure = "put the old rows back, or start a new run with another --run-dir"
    problems = [
        Problem("has changed since the run began", where=file, cure=cure)
        for file in changed_sources(before, now["sources"])
    ]
    if problems:
        raise DataError.collect(problems)


def changed_sources(before: Mapping[str, Any], sources: Iterable[Mapping[str, str]]) -> list[str]:
    """Name the sources that a data report has otherwise, or lacks; none if it names no source at all."""
    known = {(one["role"], one["file"]): one for one in before.get("sources", ())}
    return [one["file"] for one in sources if known and known.get((one["role"], one["file"])) != one]


def data_files(folder: Path) -> list[Path]:
    """Return the data files of a folder by name; hidden ones and other kinds are passed over.

    Raises:
        DataError: There is none.
    """
    files = [path for path in sorted(folder.iterdir()) if _kind(path) and not path.name.startswith(".")]
    if not files:
        known = ", ".join(SUFFIXES)
        raise DataError("no data files in this folder", where=str(folder), cure=f"known kinds: {known}")
    return files


def _kind(path: Path) -> str:
    lower = path.name.lower()
    return max((suffix for suffix in SUFFIXES if lower.endswith(suffix)), key=len, default="")


def _items(path: Path, name: str) -> Iterator[Row | Problem]:
    if path.is_dir():
        for file in data_files(path):
            yield from _items(file, f"{name}/{file.name}")
        return
    kind = _kind(path)
    if kind == ".parquet":
        yield from parquet_rows(path, name)
        return
    try:
        with open_rows(path, gzipped=kind.endswith(".gz")) as stream:
            yield from _text_items(stream, path, name)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        found = f"broken gzip data: {str(error).lower()}"
        raise DataError(found, where=str(path), cure="copy the file again") from None


def _text_items(stream: BinaryIO, path: Path, name: str) -> Iterator[Row | Problem]:
    kind = _kind(path)
    if not kind:
        cure = f"known: {', '.join(SUFFIXES)}"
        raise DataError(f"unknown kind of file '{path.suffix}'", where=str(path), cure=cure)
    if kind.startswith(".csv"):
        return csv_rows(stream, name)
    head = stream.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
    stream.seek(0)
    return list_rows(stream, name) if head.startswith(b"[") else jsonl_rows(stream, name)
