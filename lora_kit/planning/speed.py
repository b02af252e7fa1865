"""How quick hardware is: by its data sheet, or, of this machine, by one product that takes a moment."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lora_kit.model.load import pick_device
from lora_kit.planning.devices import CPU_SHARE, GPU_SHARE, Device
from lora_kit.recipe.schema import Recipe
from lora_kit.train.runtime import wait_for_device

# A training step against the rate of a large product of the same machine: 0.77 to 0.81 on a CPU (LOG.md,
# 2026-11-23); on a GPU it is assumed.
STEP_SHARE = {"cpu": 0.8, "cuda": 0.5}
LAUNCHES = {"cpu": 0.01, "cuda": 0.03}  # seconds of a micro-batch beside its products; assumed
BANDWIDTH = {"cpu": 15e9, "cuda": 300e9}  # bytes a second, of a machine whose data sheet nobody read; assumed
SIZE, PRODUCTS = {"cpu": 1024, "cuda": 4096}, 4


@dataclass(frozen=True, slots=True)
class Speed:
    """What a device does in a second.

    Args:
        flops: Operations of a training step by number type.
        bandwidth: Bytes of memory.
        batch: Seconds of a micro-batch beside both.
    """

    flops: Mapping[str, float]
    bandwidth: float
    batch: float

    def rate(self, recipe: Recipe) -> float:
        """Return the operations a second of a recipe's products; without its number type, float32's."""
        four_bit = recipe.quantization.method != "none"
        wanted = recipe.quantization.compute_dtype if four_bit else recipe.base.dtype
        return self.flops.get(wanted, self.flops["float32"])


def data_sheet(device: Device) -> Speed:
    """Return the speed of hardware that is not here."""
    share = GPU_SHARE if device.kind == "cuda" else CPU_SHARE
    flops = {name: share * rate for name, rate in device.flops.items()}
    return Speed(flops, device.bandwidth, LAUNCHES[device.kind])


def here(device: str) -> Speed:
    """Time a product on this machine.

    Args:
        device: The recipe's ``train.device``.
    """
    kind = pick_device(device)
    types = ["float32"]
    if kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        types.append("bfloat16")
    share = STEP_SHARE[kind]
    return Speed({name: share * _product_rate(kind, name) for name in types}, BANDWIDTH[kind], LAUNCHES[kind])


def _product_rate(kind: str, dtype: str) -> float:
    """Operations a second of a product, all threads."""
    size = SIZE[kind]
    one, two = (torch.randn(size, size, device=kind, dtype=getattr(torch, dtype)) for _ in range(2))
    out = one @ two
    wait_for_device()
    began = time.perf_counter()
    for _ in range(PRODUCTS):
        torch.mm(one, two, out=out)
    wait_for_device()
    return PRODUCTS * 2 * size**3 / max(time.perf_counter() - began, 1e-9)
