"""Read a finished GGUF file back and compare it with what it was made from.

Nothing of the writer is trusted: the header is read by our own careful reader, tensors are unpacked by
llama.cpp's Python reference, and every number has to lie within the rounding error of its type.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lora_kit.errors import ModelError, Problem
from lora_kit.export.gguf.plan import PlannedTensor
from lora_kit.export.gguf.quantize import NumberType
from lora_kit.export.gguf.write import ALIGNMENT, Value, source_chunks
from lora_kit.model.gguf_file import GgufHeader, read_gguf

Array = np.ndarray[Any, np.dtype[Any]]
_TOKENS = "tokenizer.ggml.tokens"


@dataclass(frozen=True, slots=True)
class WeightErrors:
    """How far the file's numbers are from those that they were made of.

    Args:
        tensors: Number of tensors compared.
        numbers: Number of numbers compared.
        max_error: Largest difference.
        relative_rms_error: Root mean square of the differences, as a share of the numbers' own.
        largest_share_of_bound: Largest difference as a share of what rounding explains; at most 1.
    """

    tensors: int
    numbers: int
    max_error: float
    relative_rms_error: float
    largest_share_of_bound: float

    def to_json(self) -> dict[str, Any]:
        """As in certificate.json."""
        return asdict(self)


def check_file(path: Path, metadata: Mapping[str, Value], tensors: tuple[PlannedTensor, ...]) -> GgufHeader:
    """Check that a file says exactly what was planned: keys, tensors, types, shapes, places, token ids.

    Raises:
        ModelError: The file is damaged, or differs from the plan; everything that differs is named.
    """
    header = read_gguf(path, lists=True)
    problems = [
        *_metadata_problems(header, metadata),
        *_tensor_problems(header, tensors),
        *_token_problems(header),
    ]
    if problems:
        raise ModelError.collect([Problem(text, str(path)) for text in problems[:20]])
    return header


def _metadata_problems(header: GgufHeader, metadata: Mapping[str, Value]) -> Iterator[str]:
    written: dict[str, Any] = {**header.metadata, **header.lists}
    for key, value in metadata.items():
        found = written.get(key)
        same = np.float32(value) == found if isinstance(value, float) else list_of(value) == list_of(found)
        if not same and value not in ("", ()):
            yield f"the value of {key} is not what was to be written"


def list_of(value: object) -> object:
    """Lists and tuples alike, everything else as it is; floats as float32 keeps them."""
    if not isinstance(value, list | tuple):
        return value
    return [float(np.float32(entry)) if isinstance(entry, float) else entry for entry in value]


def _tensor_problems(header: GgufHeader, tensors: tuple[PlannedTensor, ...]) -> Iterator[str]:
    planned = {tensor.name: (tensor.kind.code, tensor.shape) for tensor in tensors}
    for name in sorted(planned.keys() ^ header.kinds.keys()):
        yield f"the tensor '{name}' is {'missing' if name in planned else 'unexpected'}"
    for name in sorted(planned.keys() & header.kinds.keys()):
        if planned[name] != header.kinds[name]:
            yield f"the tensor '{name}' has type and shape {header.kinds[name]}, wanted {planned[name]}"
        if header.tensors[name][0] % ALIGNMENT:
            yield f"the tensor '{name}' does not begin at a multiple of {ALIGNMENT} bytes"


def _token_problems(header: GgufHeader) -> Iterator[str]:
    tokens = header.lists.get(_TOKENS)
    if tokens is None:
        return
    rows = header.kinds.get("token_embd.weight", (0, (0,)))[1][0]
    if len(tokens) != rows:
        yield f"{len(tokens)} tokens for an embedding of {rows} rows"
    if len(header.lists.get("tokenizer.ggml.token_type", ())) != len(tokens):
        yield "tokens and their types differ in number"
    for key, value in header.metadata.items():
        is_id = key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
        if is_id and not (isinstance(value, int) and value < len(tokens)):
            yield f"{key} is {value}, but there are {len(tokens)} tokens"


def compare_weights(path: Path, header: GgufHeader, tensors: tuple[PlannedTensor, ...]) -> WeightErrors:
    """Unpack every tensor of the file and compare it with its source, a piece at a time.

    Raises:
        ModelError: A number is further off than rounding explains.
    """
    numbers, largest, share, squares, total = 0, 0.0, 0.0, 0.0, 0.0
    for tensor, wanted, found in _pairs(path, header, tensors):
        error = np.abs(found - wanted)
        used = _share_of_bound(error, wanted, tensor.kind)
        if not used <= 1:
            raise ModelError(
                f"'{tensor.name}' is {used:.3g} times as far from its source as rounding explains",
                where=str(path),
                cure="this is a mistake of lora_kit's; nothing was written",
            )
        numbers += wanted.size
        largest, share = max(largest, float(error.max())), max(share, used)
        squares += float(np.vdot(error, error))
        total += float(np.vdot(wanted, wanted))
    return WeightErrors(len(tensors), numbers, largest, (squares / total) ** 0.5 if total else 0.0, share)


def _pairs(
    path: Path, header: GgufHeader, tensors: tuple[PlannedTensor, ...]
) -> Iterator[tuple[PlannedTensor, Array, Array]]:
    """Yield (tensor, source, what the file holds of it), a piece at a time."""
    with path.open("rb") as file:
        for tensor in tensors:
            file.seek(header.tensors[tensor.name][0])
            for wanted in source_chunks(tensor):
                raw = np.frombuffer(file.read(tensor.kind.size(wanted.shape)), np.uint8)
                yield tensor, wanted, unpack(raw, tensor.kind, wanted.shape)


def unpack(raw: Array, kind: NumberType, shape: tuple[int, ...]) -> Array:
    """Bytes of a tensor to float32, by the reference implementation."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    # As one long row: the reference goes through rows by sixteens.
    rows = raw.reshape(1, -1) if kind.block > 1 else raw
    values: Array = dequantize(rows, GGMLQuantizationType(kind.code)).astype(np.float32, copy=False)
    return values.reshape(shape)


def _share_of_bound(error: Array, wanted: Array, kind: NumberType) -> float:
    width = max(1, kind.block)
    bound = kind.bound(wanted.reshape(-1, width))
    largest = error.reshape(-1, width).max(axis=-1, keepdims=True)
    if kind.block > 1 or largest.any():
        return float((largest / np.maximum(bound, np.float32(1e-38))).max())
    return 0.0
