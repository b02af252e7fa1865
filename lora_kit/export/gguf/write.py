"""Write a GGUF file: the ``gguf`` package writes the header, the data follow tensor by tensor.

The same folder gives the same bytes: nothing in the file knows the time or the machine.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lora_kit.errors import ModelError
from lora_kit.export.gguf.plan import PlannedTensor
from lora_kit.export.gguf.quantize import NumberType

ALIGNMENT = 32
Value = int | float | bool | str | Sequence[int] | Sequence[float] | Sequence[str]
Progress = Callable[[int, int], None]
Array = np.ndarray[Any, np.dtype[Any]]


def write_gguf(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Value],
    tensors: Sequence[PlannedTensor],
    on_progress: Progress | None = None,
) -> None:
    """Write a file.

    Args:
        path: The file to create.
        architecture: llama.cpp's name.
        metadata: Keys and values besides ``general.architecture``; integers become uint32, floats float32,
            except in lists, where integers become int32.
        tensors: In the order of the file.
        on_progress: Told of tensors done and all.

    Raises:
        ModelError: A number does not fit its type.
        OSError: The disk can't take it.
    """
    _write_header(path, architecture, metadata, tensors)
    with path.open("ab") as file:
        _pad(file)
        for done, tensor in enumerate(tensors, start=1):
            written = sum(file.write(piece.data) for piece in packed(tensor))
            assert written == tensor.size, f"{tensor.name}: planned {tensor.size}, written {written}"
            _pad(file)
            if on_progress:
                on_progress(done, len(tensors))


def packed(tensor: PlannedTensor) -> Iterator[Array]:
    """Yield the bytes of a tensor, piece by piece.

    Raises:
        ModelError: A number does not fit the type.
    """
    for chunk in source_chunks(tensor):
        yield _pack(chunk, tensor.kind, tensor.name)


def source_chunks(tensor: PlannedTensor) -> Iterable[Array]:
    """Float32 ``(rows, columns)`` pieces of what a tensor was made of, in the file's order of rows."""
    if tensor.stored is not None:
        return tensor.stored.chunks()
    assert tensor.values is not None
    return [tensor.values.reshape(-1, tensor.values.shape[-1])]


def _pack(chunk: Array, kind: NumberType, name: str) -> Array:
    try:
        return kind.pack(chunk)
    except OverflowError:
        what = "numbers" if kind.block == 1 else f"numbers whose scales in {kind.name} are"
        raise ModelError(
            f"'{name}' has {what} beyond the range of float16", cure="use --quant bf16 or f32"
        ) from None


def _pad(file: BinaryIO) -> None:
    file.write(b"\0" * (-file.tell() % ALIGNMENT))


def _write_header(
    path: Path, architecture: str, metadata: Mapping[str, Value], tensors: Sequence[PlannedTensor]
) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, architecture)
    for key, value in metadata.items():
        _add(writer, key, value)
    for tensor in tensors:
        kind = GGMLQuantizationType(tensor.kind.code)
        # The shape is in numbers; a dtype other than uint8 says so.
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _add(writer: Any, key: str, value: Value) -> None:  # noqa: ANN401 - gguf carries no types for us
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
