"""Opening a file of rows without surprises, and saying what it is when it isn't one.

A download that went wrong leaves a web page, a Git LFS pointer or an archive
under the right name; a parser's message about byte 0 helps nobody.
"""

import gzip
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

from lora_kit.errors import DataError, MachineError
from lora_kit.registry import did_you_mean

_HEAD_BYTES = 512
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_LOOKS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the data", "run `git lfs pull`"),
    (_GZIP, "a gzip file", "name it .gz"),
    (_PARQUET, "a Parquet file", "name it .parquet"),
    (b"PK\x03\x04", "a zip archive (or an Excel workbook)", "unpack it, or export it as CSV"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it with `zstd -d`"),
    (b"\xfd7zXZ", "an xz file", "unpack it with `xz -d`"),
    (b"BZh", "a bzip2 file", "unpack it with `bzip2 -d`"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"ARROW1", "an Arrow file", "export it as Parquet or JSONL"),
    (b"%PDF", "a PDF document", "export its text as JSONL"),
    (b"SQLite format 3", "an SQLite database", "export it as CSV or JSONL"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"\x00", "binary data (it begins with a zero byte)", "copy the file again"),
)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; never blocks on a pipe or a device.

    Raises:
        DataError: There is none, or it is a directory, a pipe, a socket or a device.
        MachineError: It can't be read.
    """
    try:
        # O_NONBLOCK: opening a FIFO without a writer would wait for one for ever.
        stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except (FileNotFoundError, NotADirectoryError):
        raise DataError("no such file", where=str(path), cure=_neighbour(path)) from None
    except IsADirectoryError:
        raise DataError("this is a directory, not a file of rows", where=str(path)) from None
    except ValueError:  # a NUL byte in the name
        raise DataError("no such file", where=repr(str(path))) from None
    except OSError as error:
        if path.is_socket():
            raise DataError("this is a socket, not a file of rows", where=str(path)) from None
        raise MachineError(
            f"can't be read: {(error.strerror or str(error)).lower()}", where=str(path)
        ) from None
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise DataError(
            "this is a pipe or a device, not a file of rows", where=str(path), cure="save it to a file first"
        )
    return stream


def open_rows(path: Path, *, gzipped: bool) -> BinaryIO:
    """Open a text file of rows, unpacking gzip on the way.

    Raises:
        DataError: It is empty, or something else than text under this name.
        MachineError: It can't be read.
    """
    stream = open_regular(path)
    try:
        head = peek(stream)
        if gzipped and head:
            _refuse_plain(head, path)
            stream = cast("BinaryIO", _Unpacked(stream))
            head = peek(stream)
        refuse_other(head, path)
    except BaseException:
        stream.close()
        raise
    return stream


class _Unpacked(gzip.GzipFile):
    """Closes what it reads from, too."""

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__(fileobj=packed)
        self.packed = packed

    def close(self) -> None:
        super().close()
        self.packed.close()


def _refuse_plain(head: bytes, path: Path) -> None:
    if not head.startswith(_GZIP):
        raise DataError("this is not a gzip file", where=str(path), cure="name it without .gz")


def refuse_other(head: bytes, path: Path) -> None:
    """Raise a DataError that names what a file is, unless it begins like text."""
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(
            "the file is empty" if len(head) < _HEAD_BYTES else "the file begins with blanks", where=str(path)
        )
    for magic, look, cure in _LOOKS:
        if head.startswith(magic):
            raise DataError(f"this is {look}", where=str(path), cure=cure)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise DataError(
            "this is a web page, not the data",
            where=str(path),
            cure="download the file itself (its raw link)",
        )


def peek(stream: BinaryIO) -> bytes:
    """Return the first bytes and go back to the start."""
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    return head


def _neighbour(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    except OSError:
        return f"there is no folder {path.parent}"
    return did_you_mean(path.name, names)
