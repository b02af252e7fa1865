"""CSV and Parquet -> rows. Cells are text or values as stored; nothing is evaluated, parsed or guessed.

``=1+1`` stays the text ``=1+1``, an empty CSV cell is empty text, and a Parquet
date stays a date, which a format then refuses by name.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lora_kit.data.sniff import open_regular, peek, refuse_other
from lora_kit.data.strict_json import BOM, ROW_CAP_BYTES, too_large
from lora_kit.data.types import Row
from lora_kit.errors import DataError, Problem

# Few rows at once: a dictionary page may unfold into many copies of one large value.
_PARQUET_BATCH_ROWS = 32
_ROW_GROUP_CAP_BYTES = 1 << 30
_PARQUET_MAGIC = b"PAR1"


def csv_rows(stream: BinaryIO, name: str) -> Iterator[Row | Problem]:
    """Yield one row per record; the first one names the columns. Origins are the lines that records start on.

    Raises:
        DataError: Not UTF-8, a broken quote, a header without names or with one twice.
    """
    csv.field_size_limit(ROW_CAP_BYTES)
    reader = csv.reader(_text_lines(stream, name), strict=True)
    line = 1
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            cure = "quote every cell that has quotes or line breaks, and double the quotes in it"
            raise DataError(f"not CSV: {error}", where=f"{name}:{line}", cure=cure) from None
        if cells is None:
            return
        origin, line = f"{name}:{line}", reader.line_num + 1
        if header is None:
            header = _checked_header(cells, origin)
        elif cells:
            yield _record(header, cells, origin)


def _record(header: list[str], cells: list[str], origin: str) -> Row | Problem:
    if len(cells) != len(header):
        return Problem(f"{len(cells)} cells, but the header has {len(header)}", origin)
    if sum(map(len, cells)) > ROW_CAP_BYTES:
        return too_large(origin)
    return Row(dict(zip(header, cells, strict=True)), origin)


def _checked_header(cells: list[str], origin: str) -> list[str]:
    if len(cells) == 1 and any(mark in cells[0] for mark in ";\t|"):
        raise DataError(
            "cells must be separated by commas", where=origin, cure="export the table with commas"
        )
    for number, cell in enumerate(cells, 1):
        if not cell.strip():
            raise DataError(f"column {number} has no name", where=origin)
        if cells.count(cell) > 1:
            raise DataError(f"two columns are named '{cell}'", where=origin)
    return cells


def _text_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    number = 0
    while raw := stream.readline(ROW_CAP_BYTES + 2):
        number += 1
        if number == 1:
            raw = raw.removeprefix(BOM)
        if len(raw) > ROW_CAP_BYTES + 1:
            raise DataError.collect([too_large(f"{name}:{number}")])
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            column = len(raw[: error.start].decode("utf-8")) + 1
            found = f"byte 0x{raw[error.start]:02x} at column {column} is not UTF-8"
            raise DataError(found, where=f"{name}:{number}", cure="save the file as UTF-8") from None


def parquet_rows(path: Path, name: str) -> Iterator[Row | Problem]:
    """Yield the rows of a Parquet file, counted from 1, in bounded memory.

    Raises:
        DataError: Not Parquet, damaged, or written so that a part of it doesn't fit into memory.
    """
    import pyarrow.parquet

    with open_regular(path) as stream:
        head = peek(stream)
        if not head.startswith(_PARQUET_MAGIC):
            refuse_other(head, path)
            raise DataError("this is not a Parquet file", where=str(path))
        with _arrow_errors(path):
            file = pyarrow.parquet.ParquetFile(stream)
            _refuse_columns(file, path)
            rows = (batch.slice(at, 1) for batch in _batches(file) for at in range(batch.num_rows))
            for number, row in enumerate(rows, 1):
                yield _arrow_row(row, f"{name}:{number}")


def _batches(file: Any) -> Iterator[Any]:  # noqa: ANN401 - pyarrow has no types
    yield from file.iter_batches(_PARQUET_BATCH_ROWS, use_threads=False)


@contextmanager
def _arrow_errors(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is not UTF-8
        first = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise DataError(
            f"damaged Parquet data: {first}", where=str(path), cure="copy the file again"
        ) from None


def _refuse_columns(file: Any, path: Path) -> None:  # noqa: ANN401
    names = file.schema_arrow.names
    for column in names:
        if names.count(column) > 1:
            raise DataError(f"two columns are named '{column}'", where=str(path))
    for group in range(file.metadata.num_row_groups):
        if file.metadata.row_group(group).total_byte_size > _ROW_GROUP_CAP_BYTES:
            found = f"row group {group + 1} holds more than {_ROW_GROUP_CAP_BYTES:,} bytes"
            raise DataError(found, where=str(path), cure="write it again with smaller row groups")


def _arrow_row(one: Any, origin: str) -> Row | Problem:  # noqa: ANN401
    if one.get_total_buffer_size() > ROW_CAP_BYTES and one.nbytes > ROW_CAP_BYTES:
        return too_large(origin)
    try:
        (fields,) = one.to_pylist()
    except UnicodeDecodeError as error:
        return Problem(f"byte 0x{error.object[error.start]:02x} is not UTF-8", origin)
    except (ValueError, OverflowError) as error:  # a date that Python has no room for
        return Problem(f"a value that can't be read: {error}", origin)
    return Row(fields, origin)
