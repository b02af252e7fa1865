"""First factors that come from the base's weights: PiSSA (arXiv 2404.02948) and LoftQ (arXiv 2310.08659).

PiSSA trains (W - s B0 A0) + s B A from B = B0, A = A0, where s B0 A0 is the principal rank-R part of W. peft
takes it away from W; here W stays as it is, and [A0, -B0] is a frozen adapter beside [A, B]. So no number of
the base changes (in bfloat16 the rest would be rounded, which no adapter can undo), the base's fingerprint
holds, and what is trained is already what is saved: plain LoRA of rank 2R on the original base, [B, -B0]
times [A; A0], as peft's own conversion writes it.

LoftQ is one iteration of the paper's algorithm, as in peft's ``replace_lora_weights_loftq``: the base is what
bitsandbytes makes of W, and s B A begins as the principal rank-R part of what that rounding lost. The adapter
belongs to the 4-bit base: there, and on its dequantised weights, it is what was trained.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lora_kit.errors import ModelError
from lora_kit.model.lora_ops import ADAPTER, START, base_layer
from lora_kit.model.quantize import dense_weight
from lora_kit.model.stored_weights import Read

PREFIX = "base_model.model."
EXACT_UP_TO = 2048  # rows or columns: beyond, a whole SVD takes minutes a layer
POWER_ITERATIONS, SPARE = 16, 32  # of the randomised one: PiSSA's paper, section 5.4, and columns to spare


class Start(NamedTuple):
    """What PiSSA takes away from a weight, as a frozen adapter of the same scaling.

    Args:
        down: A0, ``(R, in)``.
        up: -B0, ``(out, R)``.
    """

    down: nn.Parameter
    up: nn.Parameter


def begin_with_principal(model: PeftModel) -> None:
    """Begin as PiSSA does; a fresh adapter changes nothing, as ever.

    Raises:
        ModelError: A weight has fewer rows or columns than the adapter's rank.
    """
    for name, layer in _adapted(model):
        down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        factors = principal_factors(
            dense_weight(base_layer(layer)), len(down), layer.scaling[ADAPTER], name=name
        )
        _copy((down, up), factors)
        vars(layer)[START] = Start(
            nn.Parameter(down.detach().clone(), requires_grad=False),
            nn.Parameter(up.detach().neg(), requires_grad=False),
        )


def begin_with_lost(model: PeftModel, read: Read) -> None:
    """Begin as LoftQ does.

    Args:
        model: With a fresh adapter on a 4-bit base.
        read: Gives the weights as they are stored, float32.

    Raises:
        ModelError: As for :func:`begin_with_principal`.
    """
    for name, layer in _adapted(model):
        down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        held = dense_weight(base_layer(layer))
        lost = read(f"{name}.weight").to(held.device, torch.float32) - held.float()
        _copy((down, up), principal_factors(lost, len(down), layer.scaling[ADAPTER], name=name))


def principal_factors(
    weight: Tensor, rank: int, factor: float, *, name: str = "the weight"
) -> tuple[Tensor, Tensor]:
    """Split the principal part of a matrix evenly: factor x B A is its best approximation of this rank.

    Args:
        weight: Float ``(out, in)``.
        rank: R.
        factor: LoRA's scaling.
        name: For the error.

    Returns:
        A ``(R, in)`` and B ``(out, R)``, float32 or float64. The largest number in each row of A is positive:
        an SVD leaves the sign open.

    Raises:
        ModelError: The rank is larger than the matrix.
    """
    if rank > min(weight.shape):
        raise ModelError(
            f"{rank} is more than the {min(weight.shape)} singular values of {name}",
            key="lora.rank",
            cure="lower it, or set lora.init to default",
        )
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    left, values, right = _svd(wide, rank)
    root = (values / factor).sqrt_()
    peaks = right.gather(1, right.abs().argmax(1, keepdim=True))
    root_signed = root * peaks[:, 0].sign()
    return right * root_signed[:, None], left * root_signed


def _svd(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return U ``(out, R)``, S ``(R,)`` and Vᵀ ``(R, in)`` of the largest singular values."""
    if min(weight.shape) <= EXACT_UP_TO:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        return left[:, :rank], values[:rank], right[:rank]
    devices = [weight.device] if weight.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        left, values, columns = torch.svd_lowrank(weight, rank + SPARE, niter=POWER_ITERATIONS)
    return left[:, :rank], values[:rank], columns.T[:rank]


def starts(model: nn.Module) -> Iterator[tuple[str, Start]]:
    """Module name, as in adapter_model.safetensors, and first factors of every layer that PiSSA began."""
    for name, layer in model.named_modules():
        if (start := vars(layer).get(START)) is not None:
            yield name, start


def _adapted(model: PeftModel) -> Iterator[tuple[str, LoraLayer]]:
    """Yield the base's name of each layer with an adapter, and the layer."""
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            yield name.removeprefix(PREFIX), layer


@torch.no_grad()
def _copy(places: tuple[nn.Parameter, nn.Parameter], values: tuple[Tensor, Tensor]) -> None:
    for place, value in zip(places, values, strict=True):
        place.copy_(value)
