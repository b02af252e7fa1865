"""Activations wait for the backward pass in the host's memory (``engine.memory: offload``).

What autograd saves on a GPU is copied to pinned memory and comes back when the backward pass asks for it
(torch.autograd.graph.save_on_cpu does so for everything; here the frozen weights stay where they are). Copies
don't round, so the gradients are the same bits. On a CPU nothing is copied: it would take the memory that it
is to save. Not run on a GPU yet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Waiting:
    """A saved tensor, away from its device.

    Args:
        copy: Its content in the host's memory.
        device: Where it was.
    """

    copy: Tensor
    device: torch.device


@contextmanager
def offloaded(model: nn.Module) -> Iterator[None]:
    """Send what autograd saves in the block to the host's memory.

    Args:
        model: Its parameters and buffers stay.
    """
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> Tensor | Waiting:
        return _away(tensor) if _moves(tensor) and _storage(tensor) not in own else tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, _back):
        yield


def _moves(tensor: Tensor) -> bool:
    """Whether a copy in the host's memory frees memory elsewhere."""
    return tensor.device.type != "cpu"


def _away(tensor: Tensor) -> Waiting:
    pinned = tensor.device.type == "cuda"
    copy = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
    # One stream: the copy is made before anything overwrites the original. Strides stay, and with them bits.
    return Waiting(copy.copy_(tensor, non_blocking=pinned), tensor.device)


def _back(saved: Tensor | Waiting) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    return saved.copy.to(saved.device, non_blocking=saved.copy.is_pinned())


def _storage(tensor: Tensor) -> int:
    """Return what views of one another have in common."""
    return tensor.untyped_storage().data_ptr()
