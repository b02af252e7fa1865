"""Weights as a base's files hold them, read one at a time into memory of their own."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from lora_kit.errors import ModelError
from lora_kit.model.base import BaseFiles
from lora_kit.model.folder import check_folder
from lora_kit.model.safetensors_file import read_header


class Read(Protocol):
    """Reads a weight by its name in the model, or some of its rows (a slice, or their numbers)."""

    def __call__(self, name: str, rows: slice | Tensor | None = None) -> Tensor:
        """Read it; raises ModelError if nothing holds the weight."""
        ...


def reader_of(files: BaseFiles, dtype: torch.dtype) -> Read:
    """Return a function that reads a weight by its name in the model, as ``dtype``.

    Raises:
        ModelError: From that function: no file holds the weight.
    """
    folder = check_folder(files.folder)
    shards = {name: shard for shard in folder.shards for name in read_header(shard)}
    return partial(_read, shards, dtype)


def _read(
    shards: Mapping[str, Path], dtype: torch.dtype, name: str, rows: slice | Tensor | None = None
) -> Tensor:
    """Copied, so that the file's pages can go; files may lack the prefix."""
    found = next((n for n in (name, name.partition(".")[2]) if n in shards), None)
    if found is None:
        raise ModelError(f"no file holds the weight {name}", cure="fetch or convert the model again")
    with safe_open(shards[found], framework="pt") as stored:
        tensor: Tensor = stored.get_tensor(found)
        return (tensor if rows is None else tensor[rows]).to(dtype, copy=True)
