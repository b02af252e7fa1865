"""Which of several equal ways to compute fits a machine: pure choices, so that they are tested without a GPU.

All ways give the same numbers, up to the rounding of their number type. The ways of a GPU are written after
their libraries' documentation and tested with stand-ins; none of them was run on a GPU yet.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch

Attention = Literal["segments", "flash", "varlen", "flex"]
AMPERE = (8, 0)  # the first with bfloat16, and the least that the flash kernels run on
LARGEST_HEAD = 256  # of the flash kernels
OPTIONAL = ("flash_attn", "triton")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a choice depends on.

    Args:
        device: torch's device type, ``cpu`` or ``cuda``.
        capability: A CUDA device's compute capability; None elsewhere.
        installed: Which of the OPTIONAL packages there are; and ``varlen``, torch's own kernel.
    """

    device: str
    capability: tuple[int, int] | None = None
    installed: frozenset[str] = frozenset()

    @property
    def is_recent_gpu(self) -> bool:
        """Whether it is a CUDA device with bfloat16."""
        return self.device == "cuda" and self.capability is not None and self.capability >= AMPERE


def attention_way(machine: Machine, dtype: torch.dtype, head_size: int, *, branches: bool) -> Attention:
    """Choose how the segments of a long row attend.

    Args:
        machine: Where.
        dtype: Number type of query, key and value.
        head_size: D.
        branches: Whether segments continue others.

    Returns:
        ``flash``: all segments in one call of the flash-attn package (arXiv 2307.08691). ``varlen``: the same
        with torch's own kernel, whose mask is documented for segments of their own only. ``flex``: one call
        of torch's compiled flex attention (arXiv 2412.05496). ``segments``: one by one, on any device.
    """
    if not machine.is_recent_gpu:
        return "segments"
    if dtype in (torch.bfloat16, torch.float16) and head_size <= LARGEST_HEAD and head_size % 8 == 0:
        if "flash_attn" in machine.installed:
            return "flash"
        if "varlen" in machine.installed and not branches:
            return "varlen"
    # Of flex attention's kernels: no float64, and heads of powers of two.
    fits = dtype != torch.float64 and head_size >= 16 and head_size & (head_size - 1) == 0
    return "flex" if "triton" in machine.installed and fits else "segments"


def autocast_type(machine: Machine, base: torch.dtype) -> torch.dtype | None:
    """Choose the number type that products are made in, while adapters stay float32; None for their own.

    On a GPU with bfloat16 a bfloat16 base makes all products in it; a float32 base stays exact.
    """
    return torch.bfloat16 if machine.is_recent_gpu and base == torch.bfloat16 else None


def fuses_adamw(machine: Machine) -> bool:
    """Whether torch has AdamW as one kernel there."""
    return machine.device in {"cpu", "cuda"}


@cache
def machine_of(device: torch.device) -> Machine:
    """Look at a device."""
    if device.type != "cuda":
        return Machine(device.type)
    found = {name for name in OPTIONAL if find_spec(name)}
    if find_spec("torch.nn.attention.varlen"):
        found.add("varlen")
    return Machine("cuda", torch.cuda.get_device_capability(device), frozenset(found))
