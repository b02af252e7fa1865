"""Encoded rows as an Arrow file that is mapped, not read: a million rows cost pages, not Python objects.

One record batch holds some thousand rows: ids and flags as flat arrays with the rows' ends beside them,
origin, content hash and side. An ``Example`` is made from it when it is asked for, and forgotten.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from lora_kit.data.types import Example

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
IDS, FLAGS = pa.list_(pa.int32()), pa.list_(pa.bool_())
SCHEMA = pa.schema(
    [
        ("input_ids", IDS),
        ("trained", FLAGS),
        ("origin", pa.binary()),
        ("content_hash", pa.binary()),
        ("held_out", pa.bool_()),
    ]
)


def lengths_of(rows: Sequence[Example]) -> Ints:
    """Tokens of each row, int64 ``(E,)``; rows in a mapped file know them."""
    known: Ints | None = getattr(rows, "lengths", None)
    return np.array([len(row.input_ids) for row in rows], np.int64) if known is None else known


def spread(rows: Sequence[Example], most: int) -> list[Example]:
    """Return at most so many rows, evenly spread, the first among them."""
    count = min(most, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


class Examples(Sequence[Example]):
    """Examples of one side in the order of their files, each made from the mapped file when asked for.

    Args:
        blocks: Everything in the file.
        rows: Which rows of the file, in order.
    """

    def __init__(self, blocks: "Blocks", rows: Ints) -> None:
        self._blocks = blocks
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> "Examples": ...
    def __getitem__(self, at: int | slice) -> "Example | Examples":
        if isinstance(at, slice):
            return Examples(self._blocks, self._rows[at])
        return self._blocks.example(int(self._rows[at]))

    def __iter__(self) -> Iterator[Example]:
        return (self._blocks.example(int(row)) for row in self._rows)

    def __add__(self, other: "Examples") -> "Examples":
        assert self._blocks is other._blocks
        return Examples(self._blocks, np.concatenate([self._rows, other._rows]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]  # equal to tuples and lists, like any sequence of examples

    def origins(self) -> Iterator[str]:
        """Yield where each example came from, without making it."""
        return (self._blocks.origin(int(row)) for row in self._rows)

    @property
    def lengths(self) -> Ints:
        """Tokens of each example, int64 ``(E,)``."""
        return self._blocks.lengths[self._rows]


class Blocks:
    """A mapped file.

    Args:
        batches: Its record batches.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self._blocks = [_Block(batch) for batch in batches]
        self._starts = np.cumsum([0, *(block.rows for block in self._blocks)]).tolist()

    @classmethod
    def open(cls, path: Path) -> "Blocks":
        """Map a file written by a `row_writer.RowWriter`; it may be deleted while it is mapped.

        Raises:
            pa.ArrowInvalid: This is no such file.
            OSError: It can't be read.
        """
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.schema != SCHEMA:
            raise pa.ArrowInvalid("not a file of encoded rows")
        return cls(reader.get_batch(at) for at in range(reader.num_record_batches))

    def side(self, *, held_out: bool) -> Examples:
        """Return the examples of training or of validation."""
        flags = [block.held_out == held_out for block in self._blocks]
        return Examples(self, np.flatnonzero(np.concatenate(flags)) if flags else np.zeros(0, dtype=np.int64))

    def example(self, row: int) -> Example:
        """Return the example in a row of the file."""
        block = bisect_right(self._starts, row) - 1
        return self._blocks[block].example(row - self._starts[block])

    def origin(self, row: int) -> str:
        """Return where the example in a row of the file came from."""
        block = bisect_right(self._starts, row) - 1
        return self._blocks[block].origin(row - self._starts[block])

    @cached_property
    def lengths(self) -> Ints:
        """Tokens of each row of the file, int64."""
        lengths = [np.diff(block.ends) for block in self._blocks]
        return np.concatenate(lengths).astype(np.int64) if lengths else np.zeros(0, dtype=np.int64)


class _Block:
    """One record batch as flat arrays, none of them copied."""

    def __init__(self, batch: Any) -> None:  # noqa: ANN401 - pyarrow has no types
        self.rows: int = batch.num_rows
        ids, trained, origins, hashes, held_out = (column.buffers() for column in batch.columns)
        self.ends = np.frombuffer(ids[1], dtype=np.int32, count=self.rows + 1)
        self._ids = np.frombuffer(ids[3], dtype=np.int32)
        self._trained = np.frombuffer(trained[3], dtype=np.uint8)
        self._origins = np.frombuffer(origins[1], dtype=np.int32), origins[2]
        self._hashes = np.frombuffer(hashes[1], dtype=np.int32), hashes[2]
        self._held_out = np.frombuffer(held_out[1], dtype=np.uint8)

    @property
    def held_out(self) -> Flags:
        """Which rows are for validation, bool ``(rows,)``."""
        return np.unpackbits(self._held_out, count=self.rows, bitorder="little").astype(bool)

    def origin(self, row: int) -> str:
        return _text(self._origins, row)

    def example(self, row: int) -> Example:
        start, end = int(self.ends[row]), int(self.ends[row + 1])
        octets = np.unpackbits(self._trained[start // 8 : (end + 7) // 8], bitorder="little")
        flags = octets[start % 8 : start % 8 + end - start].astype(bool)
        return Example(
            tuple(self._ids[start:end].tolist()),
            tuple(flags.tolist()),
            self.origin(row),
            _text(self._hashes, row),
        )


def _text(texts: tuple[Any, Any], row: int) -> str:
    ends, joined = texts
    if joined is None:  # no text at all
        return ""
    start, end = int(ends[row]), int(ends[row + 1])
    return bytes(joined[start:end]).decode("utf-8", "surrogateescape")


def _same(one: object, other: object) -> bool:
    return one == other
