"""The weights of a GGUF file under transformers' names, read one at a time, or some rows of one."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_kit.errors import ModelError
from lora_kit.export.gguf.check import unpack
from lora_kit.export.gguf.k_quants import READABLE
from lora_kit.export.gguf.plan import EMBEDDING, OUTPUT, ExportPlan, PlannedTensor
from lora_kit.model.gguf_file import GgufHeader
from lora_kit.model.stored_weights import Read

Array = np.ndarray[Any, np.dtype[Any]]
_HEADS = ("lm_head.weight", "embed_out.weight")


def file_reader(path: Path, header: GgufHeader, plan: ExportPlan) -> Read:
    """Return a function that reads the file's numbers by transformers' names, float32, row orders undone.

    Args:
        path: The file.
        header: Of the file.
        plan: Which of transformers' tensors each of the file's was made from.
    """
    tensors = {tensor.name: tensor for tensor in plan.tensors if tensor.stored is not None}
    by_name = {tensor.stored.name: tensor for tensor in tensors.values() if tensor.stored}
    if OUTPUT in tensors:  # made from the embedding, maybe; llama.cpp multiplies with this one
        embedding = tensors[EMBEDDING].stored
        assert embedding is not None
        by_name |= {embedding.name: tensors[EMBEDDING], **dict.fromkeys(_HEADS, tensors[OUTPUT])}
    return partial(_read, path, header, by_name)


def _read(
    path: Path,
    header: GgufHeader,
    tensors: Mapping[str, PlannedTensor],
    name: str,
    rows: slice | Tensor | None = None,
) -> Tensor:
    """Files may lack the model's own prefix."""
    tensor = tensors.get(name) or tensors.get(name.partition(".")[2])
    if tensor is None or tensor.stored is None:
        raise ModelError(f"the model has no '{name}'", where=str(path))
    order = tensor.stored.order
    if rows is None or order is not None:
        values = read_tensor(path, header, tensor.name)
        values = values if order is None else values[np.argsort(order)]
        return torch.from_numpy(values)[slice(None) if rows is None else rows]
    if isinstance(rows, slice):
        first, last, _ = rows.indices(tensor.shape[0])
        return torch.from_numpy(read_rows(path, header, tensor.name, first, last))
    parts = [read_rows(path, header, tensor.name, row, row + 1) for row in rows.tolist()]
    return torch.from_numpy(np.concatenate(parts))


def read_tensor(path: Path, header: GgufHeader, name: str) -> Array:
    """One tensor of a file as float32, in the file's order of rows.

    Raises:
        ModelError: It is of a number type that lora_kit does not read.
    """
    return read_rows(path, header, name, 0, header.kinds[name][1][0])


def read_rows(path: Path, header: GgufHeader, name: str, first: int, last: int) -> Array:
    """Rows of one tensor, from ``first`` to before ``last``; a vector's numbers are its rows.

    Raises:
        ModelError: It is of a number type that lora_kit does not read.
    """
    code, shape = header.kinds[name]
    if code not in READABLE:
        raise ModelError(f"'{name}' is of ggml type {code}", where=str(path))
    kind, start = READABLE[code], header.tensors[name][0]
    part = (last - first, *shape[1:])
    raw = np.fromfile(path, np.uint8, kind.size(part), offset=start + kind.size((first, *shape[1:])))
    return unpack(raw, kind, part)
