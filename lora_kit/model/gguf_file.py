"""The header of a GGUF file, read with distrust before any library maps the file.

Every length is checked against what is left of the file, so a forged count or offset (CVE-2026-7482) is an
error here and never an access beyond the end. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

from lora_kit.errors import ModelError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MAX_STRING_BYTES = 1 << 24
MAX_DEPTH = 2
ARCHITECTURES = ("llama",)

Value = str | int | float | bool | None
Entries = list[str] | list[int] | list[float] | list[bool]


class _DamagedError(Exception):
    """The file contradicts itself."""


@dataclass
class _Reader:
    """A cursor that never passes the end."""

    data: mmap.mmap
    at: int = 0
    lists: dict[str, Entries] | None = None  # filled by name if it is there

    def skip(self, count: int) -> int:
        start = self.at
        if count < 0 or count > len(self.data) - start:
            raise _DamagedError(f"it ends at byte {len(self.data)}, in the middle of its header")
        self.at += count
        return start

    def number(self, code: str) -> int | float | bool:
        size = struct.calcsize(f"<{code}")
        start = self.skip(size)
        value: int | float | bool = struct.unpack_from(f"<{code}", self.data, start)[0]
        return value

    def count(self, code: str = "Q") -> int:
        return int(self.number(code))

    def string(self) -> str:
        length = self.count()
        if length > MAX_STRING_BYTES:
            raise _DamagedError(f"a text of {length} bytes")
        start = self.skip(length)
        return self.data[start : start + length].decode("utf-8", errors="replace")

    def value(self, kind: int, key: str = "", depth: int = 0) -> Value:
        """Read a value; lists go to ``lists``, or are only stepped over."""
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY or depth >= MAX_DEPTH:
            raise _DamagedError(f"a value of unknown type {kind}")
        element, length = self.count("I"), self.count()
        if element in SCALARS:
            code = SCALARS[element]
            start = self.skip(length * struct.calcsize(f"<{code}"))
            if self.lists is not None:
                self.lists[key] = list(struct.unpack_from(f"<{length}{code}", self.data, start))
            return None
        if length > len(self.data) - self.at:
            raise _DamagedError(f"a list of {length} entries")
        entries = [self.value(element, key, depth + 1) for _ in range(length)]
        if self.lists is not None and element == STRING:
            self.lists[key] = [str(entry) for entry in entries]
        return None


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says about itself.

    Args:
        metadata: The scalar and text values.
        tensors: Tensor name to (first byte, first byte after it), counted from the start of the file.
        kinds: Tensor name to ggml's number of its type and its shape, the last dimension of GGUF first,
            as numpy and torch have it.
        lists: The lists of numbers and texts; empty unless asked for.
    """

    metadata: dict[str, Value]
    tensors: dict[str, tuple[int, int]]
    kinds: dict[str, tuple[int, tuple[int, ...]]]
    lists: dict[str, Entries]


def read_gguf(path: Path, *, lists: bool = False) -> GgufHeader:
    """Read the header of any GGUF file, whatever model or adapter it holds.

    Args:
        path: The file.
        lists: Keep the values that are lists (a vocabulary takes some megabytes).

    Raises:
        ModelError: There is none, or it is damaged.
    """
    if not path.is_file():
        raise ModelError("no such file", where=str(path), cure="correct the name of the GGUF file")
    if path.stat().st_size < 24:
        raise _damaged(path, "it is too short")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _read(_Reader(data, lists={} if lists else None))
        except _DamagedError as error:
            raise _damaged(path, str(error)) from None


def check_gguf(path: Path) -> GgufHeader:
    """Check that a GGUF file is whole and is a model that transformers converts without loss of meaning.

    Raises:
        ModelError: It is damaged, split, of another architecture, or has a rotary scaling that would get
            lost.
    """
    header = read_gguf(path)
    _check_meaning(header, path)
    return header


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(
        f"not a readable GGUF file: {why}", where=str(path), cure="fetch, install or export it again"
    )


def _read(reader: _Reader) -> GgufHeader:
    if reader.data[reader.skip(4) : 4] != b"GGUF":
        raise _DamagedError("it does not begin with GGUF")
    version, tensor_count, value_count = reader.count("I"), reader.count(), reader.count()
    if version not in {2, 3}:
        raise _DamagedError(f"version {version}, known are 2 and 3")
    metadata: dict[str, Value] = {}
    for _ in range(value_count):
        key = reader.string()
        value = reader.value(reader.count("I"), key)
        if value is not None:
            metadata[key] = value
    places: dict[str, tuple[int, int]] = {}
    kinds: dict[str, tuple[int, tuple[int, ...]]] = {}
    for _ in range(tensor_count):
        name, offset, size, kind = _tensor(reader)
        if name in places:
            raise _DamagedError(f"the tensor '{name}' occurs twice")
        places[name] = (offset, offset + size)
        kinds[name] = kind
    placed = _placed(places, reader, metadata.get("general.alignment", 32))
    return GgufHeader(metadata, placed, kinds, reader.lists or {})


def _tensor(reader: _Reader) -> tuple[str, int, int, tuple[int, tuple[int, ...]]]:
    """Read one tensor's entry: name, offset in the data, size in bytes, number type and shape."""
    from gguf.constants import GGML_QUANT_SIZES

    name, dimensions = reader.string(), reader.count("I")
    if not 1 <= dimensions <= 4:
        raise _DamagedError(f"the tensor '{name}' has {dimensions} dimensions")
    shape = [reader.count() for _ in range(dimensions)]
    kind, offset = reader.count("I"), reader.count()
    if kind not in set(GGML_QUANT_SIZES):
        raise _DamagedError(f"the tensor '{name}' has the unknown number type {kind}")
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if 0 in shape or shape[0] % block:
        raise _DamagedError(f"the tensor '{name}' has the impossible shape {shape}")
    return name, offset, prod(shape) // block * block_bytes, (kind, tuple(reversed(shape)))


def _placed(
    places: dict[str, tuple[int, int]], reader: _Reader, alignment: Value
) -> dict[str, tuple[int, int]]:
    if not isinstance(alignment, int) or alignment < 8 or alignment % 8:
        raise _DamagedError(f"an alignment of {alignment}")
    start = -(-reader.at // alignment) * alignment
    tensors = {name: (start + first, start + end) for name, (first, end) in places.items()}
    beyond = [name for name, (_, end) in tensors.items() if end > len(reader.data)]
    if beyond:
        raise _DamagedError(f"the tensor '{beyond[0]}' lies beyond its end, so it is cut off or damaged")
    if any(after[0] < before[1] for before, after in pairwise(sorted(tensors.values()))):
        raise _DamagedError("its tensors overlap")
    return tensors


def _check_meaning(header: GgufHeader, path: Path) -> None:
    architecture = header.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(
            f"unsupported GGUF architecture '{architecture}'", where=str(path), cure=f"known: {known}"
        )
    parts = header.metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise ModelError(
            f"one of {parts} parts", where=str(path), cure="join them with llama-gguf-split --merge"
        )
    scaling = header.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if "rope_freqs.weight" in header.tensors or scaling != "none":
        # transformers 5.23 drops both without a word, which gives another model.
        raise ModelError(
            "its rotary scaling would be lost in the conversion",
            where=str(path),
            cure="use the safetensors model",
        )
