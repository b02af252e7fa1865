"""Weights of a model folder as float32 rows, a few at a time, with numpy and without torch.

Reads plainly instead of mapping: pages of a mapped file count as memory of the process, and a file that
somebody cuts short would end it by a signal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lora_kit.errors import ModelError
from lora_kit.export.gguf.architecture import RowOrder
from lora_kit.model.safetensors_file import TensorEntry

Array = np.ndarray[Any, np.dtype[Any]]
CHUNK_NUMBERS = 1 << 20
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a safetensors file.

    Args:
        name: transformers' name.
        path: The file.
        entry: Where it is in the file.
        order: ``order[i]`` is the stored row that comes i-th; None: as stored.
    """

    name: str
    path: Path
    entry: TensorEntry
    order: RowOrder | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape; a reordering does not change it."""
        return self.entry.shape

    def chunks(self) -> Iterator[Array]:
        """Yield float32 ``(rows, columns)`` pieces of about a million numbers; a vector is one row.

        Raises:
            ModelError: An unknown number type, or numbers that are not finite.
        """
        dtype = _DTYPES.get(self.entry.dtype)
        if dtype is None:
            raise ModelError(f"'{self.name}' is of type {self.entry.dtype}", where=str(self.path))
        rows, columns = (1, self.shape[0]) if len(self.shape) == 1 else (self.shape[0], prod(self.shape[1:]))
        if self.order is not None:  # rows from everywhere, so all of it; no reordered tensor is the largest
            stored = np.fromfile(self.path, dtype, rows * columns, offset=self.entry.start)
            stored = stored.reshape(len(self.order), -1)
        step = max(1, CHUNK_NUMBERS // columns)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            if self.order is None:
                place = self.entry.start + start * columns * np.dtype(dtype).itemsize
                piece = np.fromfile(self.path, dtype, count * columns, offset=place)
            else:
                piece = stored[self.order if rows == 1 else self.order[start : start + count]]
            yield self._floats(piece.reshape(count, columns))

    def _floats(self, stored: Array) -> Array:
        if self.entry.dtype == "BF16":
            values = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
        else:
            values = stored.astype(np.float32)
        if not np.isfinite(values).all():
            raise ModelError(f"'{self.name}' holds NaN or infinity", where=str(self.path))
        return values
