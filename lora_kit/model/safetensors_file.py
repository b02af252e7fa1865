"""The header of a safetensors file, read with distrust: names, types, shapes and where the bytes are.

safetensors' own reader accepts a duplicated name (the last one wins) and says little about what it refuses.
This one reads only the header, without numpy or torch, so that a wrong file is named before anything heavy is
imported. Format: 8 bytes little-endian header length, JSON header, data
(https://huggingface.co/docs/safetensors).
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

from lora_kit.errors import ModelError

Untrusted: TypeAlias = Any

MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
LOOKS_LIKE = {
    b"version https://git-lfs": "a Git LFS pointer, not the weights",
    b"<!DOCTYPE": "a web page",
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"PK\x03\x04": "a pickle of torch.save",
    b"\x80\x02": "a pickle",
    b"\x80\x04": "a pickle",
    b"GGUF": "a GGUF file",
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor is in its file.

    Args:
        dtype: safetensors' name of the number type, such as ``F32``.
        shape: Sizes of the dimensions.
        start: First byte, counted from the start of the file.
        end: First byte after it.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Read the names and places of the tensors in a file, in the file's order.

    Raises:
        ModelError: Can't be read, is not safetensors, or its header contradicts itself or the file's size.
    """
    size = path.stat().st_size
    try:
        stream = path.open("rb")
    except OSError as error:
        raise ModelError(
            f"can't be read: {(error.strerror or str(error)).lower()}", where=str(path)
        ) from error
    with stream as file:
        start = file.read(16)
        length = int.from_bytes(start[:8], "little")
        if size < 10 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise _unreadable(path, _guess(start, size))
        file.seek(8)
        raw = file.read(length)
    header = _parse(raw, path)
    header.pop("__metadata__", None)
    entries = {name: _entry(name, value, 8 + length, path) for name, value in header.items()}
    _check_cover(list(entries.values()), 8 + length, size, path)
    return entries


def _unreadable(path: Path, why: str) -> ModelError:
    return ModelError(
        f"not a readable safetensors file: {why}", where=str(path), cure="fetch or convert the model again"
    )


def _guess(start: bytes, size: int) -> str:
    for magic, what in LOOKS_LIKE.items():
        if start.startswith(magic[:16]):
            return what
    return (
        "the file is empty"
        if size == 0
        else "its header length is impossible, so it is damaged or something else"
    )


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise _unreadable(path, "a name occurs twice in its header")
        return content

    try:
        header = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise _unreadable(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _unreadable(path, "its header is not a JSON object")
    return header


def _entry(name: str, value: Untrusted, data_start: int, path: Path) -> TensorEntry:
    try:
        dtype, shape, (start, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        numbers = (*shape, start, end)
        expected = prod(shape) * ITEM_BYTES[dtype]
    except (KeyError, TypeError, ValueError):
        raise _unreadable(path, f"the entry of '{name}' is not understood") from None
    if not all(type(number) is int and number >= 0 for number in numbers) or end - start != expected:
        raise _unreadable(path, f"the size of '{name}' does not fit its shape")
    return TensorEntry(dtype, shape, data_start + start, data_start + end)


def _check_cover(entries: list[TensorEntry], data_start: int, size: int, path: Path) -> None:
    """The tensors must cover the file without gaps, overlaps or a rest."""
    places = sorted((entry.start, entry.end) for entry in entries)
    places = [(data_start, data_start), *places]
    if any(after[0] != before[1] for before, after in pairwise(places)):
        raise _unreadable(path, "its tensors overlap or leave gaps")
    if places[-1][1] != size:
        raise _unreadable(
            path, f"it has {size} bytes where its header promises {places[-1][1]}: cut off or damaged"
        )
