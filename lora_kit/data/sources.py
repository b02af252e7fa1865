"""A file on disk -> rows with their origin (``dolly-15k.jsonl:412``), one at a time.

What a file is, its name says and its first bytes confirm; nothing is guessed
about the values. Rows that are broken come out as problems in their place, so
that all of them can be shown at once or counted; a broken file raises.
"""

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from lora_kit.data.sniff import open_regular, open_rows
from lora_kit.data.strict_json import jsonl_rows, list_rows
from lora_kit.data.types import Row
from lora_kit.errors import DataError, Problem

SUFFIXES = (".jsonl", ".json")


def read_rows(
    path: Path,
    *,
    limit: int | None = None,
    name: str = "",
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Row]:
    """Read the rows of one file in order, in bounded memory.

    Args:
        path: The file.
        limit: Stop after so many rows, broken ones included.
        name: What origins call the file; its own name if empty.
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
    """Return the sha256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _items(path: Path, name: str) -> Iterator[Row | Problem]:
    if path.suffix.lower() not in SUFFIXES and path.exists():
        raise DataError(
            f"unknown kind of file '{path.suffix}'", where=str(path), cure=f"known: {', '.join(SUFFIXES)}"
        )
    with open_rows(path, gzipped=False) as stream:
        head = stream.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
        stream.seek(0)
        yield from list_rows(stream, name) if head.startswith(b"[") else jsonl_rows(stream, name)
