"""Named tensors on disk: safetensors, made durable and readable.

safetensors 0.8 leaves its files with mode 0600 whatever the umask says, does not
fsync, maps files into memory by default (a truncated file then kills the process with
SIGBUS), and loads NaN without a word. This module mends those four.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lora_kit.artifacts.disk import disk_errors, sync_file, umask
from lora_kit.errors import ModelError

_SYSTEM_ERROR = re.compile(r"I/O error: (.*) \(os error (\d+)\)")


def tensor_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Size of the data, without the header."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def nonfinite_names(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the floating tensors that hold NaN or infinity, in order."""
    return [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]


def shorten_names(names: list[str], most: int = 5) -> str:
    """Join the first names: ``"a, b ... and 3 more"``."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" ... and {rest} more" if rest > 0 else "")


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors to a new file, durable, with the mode that the umask asks for.

    The same tensors give the same bytes. Not atomic on its own account: call it inside ``committed_dir``.

    Args:
        path: Ends in ``.safetensors``; an existing file is replaced.
        tensors: Any dtypes and devices; no two may share memory.

    Raises:
        MachineError: Disk full, read-only, or gone.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with disk_errors(path, needed_bytes=tensor_bytes(ready)):
        try:
            save_file(ready, path, metadata={"format": "pt"})
        except SafetensorError as error:
            system = _SYSTEM_ERROR.search(str(error))
            if not system:
                raise
            raise OSError(int(system[2]), system[1]) from error
        path.chmod(0o666 & ~umask())
        sync_file(path)


def read_tensors(path: Path, *, finite: bool = True) -> dict[str, torch.Tensor]:
    """Read all tensors into memory of their own, on the CPU, in the order of names.

    Args:
        path: A safetensors file.
        finite: Refuse NaN and infinity.

    Raises:
        ModelError: Missing, not safetensors, damaged, or holding numbers that are not finite.
    """
    if not path.is_file():
        raise ModelError("is not a regular file" if path.exists() else "is missing", where=str(path))
    try:
        tensors: dict[str, torch.Tensor] = load_file(path, backend="pread")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"is not a whole safetensors file: {error}", where=str(path)) from error
    names = nonfinite_names(tensors) if finite else []
    if names:
        raise ModelError(f"holds NaN or infinity in {shorten_names(names)}", where=str(path))
    return dict(sorted(tensors.items()))
