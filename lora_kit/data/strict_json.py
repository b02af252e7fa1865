"""JSON as bytes -> rows, with nothing guessed and nothing let through.

The usual readers turn date-like strings into dates, fill missing fields with
None, keep NaN and the last of two equal keys, and report rows of their own
batches. Here a row is what the file says, or a problem that names ``file:row``.
Size and nesting are capped on the raw bytes, before anything is built from them.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from lora_kit.data.types import Row
from lora_kit.errors import DataError, Problem

ROW_CAP_BYTES = 1 << 20
DEPTH_CAP = 64
BOM = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1 << 20

# One closed string, or a quote that is never closed, or a bracket; possessive, so that no input is quadratic.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{}]', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*+")
_CUT_OFF = "it may be cut off: copy it again"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _RefusedError(ValueError):
    """Bytes that aren't a row: not JSON, or something that JSON readers accept and we don't."""

    def __init__(self, found: str, cure: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.cure = cure


def _no_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"key '{twice}' appears twice in one object")
    return fields


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique_keys)


def jsonl_rows(stream: BinaryIO, name: str) -> Iterator[Row | Problem]:
    """Yield one row, or its problem, per line that isn't blank; never holds more than one line."""
    number = 0
    while line := stream.readline(ROW_CAP_BYTES + 2):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        if len(line) > ROW_CAP_BYTES + 1 or (len(line) > ROW_CAP_BYTES and line[-1] != 10):
            _skip_line(stream, line)
            yield too_large(f"{name}:{number}")
        elif not line.isspace():
            yield _row(line, f"{name}:{number}")


def list_rows(stream: BinaryIO, name: str) -> Iterator[Row | Problem]:
    """Yield one row, or its problem, per element of a JSON list; holds an element and a block at most.

    Raises:
        DataError: The list itself is broken, so that where rows begin is unknown.
    """
    window = _Window(stream)
    number = 1
    window.expect(b"[", f"{name}:{number}")
    closed = window.next_byte() == b"]"
    if closed:
        window.expect(b"]", name)
    while not closed:
        origin = f"{name}:{number}"
        yield _row(window.take_object(origin), origin)
        closed = window.expect(b",]", origin) == b"]"
        number += not closed
    if window.next_byte():
        raise DataError("text after the end of the list", where=f"{name}:{number}")


class _Window:
    """A sliding view of a stream, moved by whole JSON elements."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.buffer = stream.read(_BLOCK_BYTES).removeprefix(BOM)
        self.at = 0

    def next_byte(self) -> bytes:
        """Skip white space; return the next byte without taking it, ``b""`` at the end."""
        while True:
            self.at = _SPACE.match(self.buffer, self.at).end()  # type: ignore[union-attr]  # matches always
            if self.at < len(self.buffer) or not self._refill():
                return self.buffer[self.at : self.at + 1]

    def expect(self, allowed: bytes, origin: str) -> bytes:
        """Take the next byte, which must be one of `allowed`."""
        byte = self.next_byte()
        if not byte:
            raise DataError("the file ends before the list is closed", where=origin, cure=_CUT_OFF)
        if byte not in allowed:
            wanted = " or ".join(f"'{chr(one)}'" for one in allowed)
            raise DataError(f"not JSON: expected {wanted}, found {byte!r}", where=origin)
        self.at += 1
        return byte

    def take_object(self, origin: str) -> bytes:
        """Take the next ``{...}``."""
        first = self.next_byte()
        if first and first != b"{":
            found = self.buffer[self.at : self.at + 20].decode("utf-8", "replace")
            raise DataError(f"an element must be an object {{...}}, found {found!r}", where=origin)
        while True:
            start, end = self.at, _closing(self.buffer, self.at, origin)
            if (end or len(self.buffer)) - start > ROW_CAP_BYTES:
                raise DataError.collect([too_large(origin)])
            if end:
                self.at = end
                return self.buffer[start:end]
            if not self._refill():
                part = "in the middle of this element" if first else "before the list is closed"
                raise DataError(f"the file ends {part}", where=origin, cure=_CUT_OFF)

    def _refill(self) -> bool:
        block = self.stream.read(_BLOCK_BYTES)
        self.buffer = self.buffer[self.at :] + block
        self.at = 0
        return bool(block)


def _closing(raw: bytes, start: int, origin: str) -> int:
    """Return where the bracket opened at `start` is closed, 0 if not in `raw`.

    Raises:
        DataError: The brackets go deeper than the cap.
    """
    depth = 0
    for token in _TOKEN.finditer(raw, start):
        text = token.group()
        if text in b"{[":
            depth += 1
            if depth > DEPTH_CAP:
                raise DataError(f"nested more than {DEPTH_CAP} levels deep", where=origin)
        elif text in b"}]":
            depth -= 1
            if depth == 0:
                return token.end()
        elif len(text) == 1:
            break
    return 0


def _row(raw: bytes, origin: str) -> Row | Problem:
    try:
        if raw.count(b"{") + raw.count(b"[") > DEPTH_CAP:
            _closing(raw, 0, origin)
        fields = _parse(raw)
    except DataError as error:
        return error.problems[0]
    except _RefusedError as refused:
        return Problem(refused.found, origin, cure=refused.cure)
    if not isinstance(fields, dict):
        return Problem(f"a row must be an object {{...}}, found {kind_of(fields)}", origin)
    return Row(fields, origin)


def _parse(raw: bytes) -> object:
    """Parse one row's bytes; whatever is wrong is a `_RefusedError`."""
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        column = len(raw[: error.start].decode("utf-8")) + 1
        found = f"byte 0x{raw[error.start]:02x} at column {column} is not UTF-8"
        raise _RefusedError(found, "save the file as UTF-8") from None
    except UnicodeEncodeError:
        raise _RefusedError(
            "half of a surrogate pair, which is no character", "remove the \\ud... escape"
        ) from None
    except json.JSONDecodeError as error:
        found = f"not JSON: {error.msg.lower()} at column {error.pos + 1}"
        raise _RefusedError(found, _json_cure(raw, error)) from None
    except _RefusedError:
        raise
    except ValueError:  # Python's own limit
        raise _RefusedError("an integer of thousands of digits") from None
    return value


def _json_cure(raw: bytes, error: json.JSONDecodeError) -> str:
    if raw.strip() in {b"{", b"["}:
        return "write one object per line, or a list [{...}, ...] of objects"
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
        return "the line ends too early: it may be cut off"
    return ""


def kind_of(value: object) -> str:
    """Name a JSON value's type as its writer would: ``a number``, ``null``, ``a list``."""
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _skip_line(stream: BinaryIO, line: bytes) -> None:
    while line and line[-1] != 10:
        line = stream.readline(_BLOCK_BYTES)


def too_large(origin: str) -> Problem:
    """Refuse a row above the cap."""
    return Problem(
        f"a row of more than {ROW_CAP_BYTES:,} bytes", origin, cure="split the row, or leave it out"
    )
