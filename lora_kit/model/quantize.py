"""What a layer really multiplies with: for one that is held in 4 or 8 bits, its dequantised weights.

An adapter on a 4-bit base learned to correct these, not the original ones, so a merge adds to these
(QLoRA, arXiv 2305.14314; merging elsewhere loses quality, peft issues 1043, 2105, 2321).

8-bit weights are LLM.int8's (arXiv 2208.07339), a constant for each row, but not its products: these round
the activations too, by what else is in the micro-batch (a column is an outlier for all tokens or for none),
so that rows would see each other, and no merged model could equal what was trained.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora_kit.model.product import product
from lora_kit.recipe.schema import QuantizationSpec

UNPACKED = "lora_kit_unpacked"  # attribute of an 8-bit layer: the number type of its products
Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type


def dequantized_weights(model: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Module name to a function that makes its dense weight, float32 ``(out, in)``, for every packed layer.

    Args:
        model: A model, or a PeftModel; names are those of the base model either way.
    """
    return {
        name.removeprefix("base_model.model.").removesuffix(".base_layer"): _reader(module)
        for name, module in model.named_modules()
        if is_packed(module)
    }


def is_four_bit(module: nn.Module) -> bool:
    """Whether this is bitsandbytes' own layer (peft's wrapper has the same name), without importing it."""
    return type(module).__name__ == "Linear4bit" and isinstance(module, nn.Linear)


def is_eight_bit(module: nn.Module) -> bool:
    """Whether this is bitsandbytes' 8-bit layer, without importing it."""
    return type(module).__name__ == "Linear8bitLt" and isinstance(module, nn.Linear)


def is_packed(module: nn.Module) -> bool:
    """Whether a linear layer's weights have to be unpacked."""
    return is_four_bit(module) or is_eight_bit(module)


def multiply_unpacked(model: nn.Module, dtype: torch.dtype) -> None:
    """Let 8-bit layers multiply with their dequantised weights, in this number type."""
    for layer in model.modules():
        if is_eight_bit(layer):
            vars(layer)[UNPACKED] = dtype
            vars(layer)["forward"] = MethodType(_forward, layer)


def number_type(layer: nn.Linear) -> torch.dtype | None:
    """Return the type that a layer multiplies in; None if its 4 bits are unpacked to another type."""
    if is_eight_bit(layer):
        unpacked: torch.dtype = vars(layer)[UNPACKED]
        return unpacked
    if not is_four_bit(layer):
        return layer.weight.dtype
    weight: Any = layer.weight
    held: torch.dtype = weight.quant_state.dtype
    return held if layer.compute_dtype == held else None


def dense_weight(layer: nn.Linear) -> Tensor:
    """Return a layer's frozen weight, ``(out, in)``: unpacked, in a tensor of its own, if it is packed.

    The numbers are those that bitsandbytes' own forward multiplies with; unpacking takes about a twentieth of
    a product with 500 tokens.
    """
    if not is_packed(layer):
        return layer.weight.detach()
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant

    weight: Any = layer.weight
    if is_eight_bit(layer):
        unpacked: Tensor = int8_vectorwise_dequant(weight.data, weight.SCB)
        return unpacked.to(vars(layer)[UNPACKED])
    dense: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return dense


def as_held(weight: Tensor, spec: QuantizationSpec) -> Tensor:
    """Round a weight to 4 bits (bitsandbytes' blocks of 64) or 8 (by rows) and back, as a base holds it.

    Args:
        weight: Float ``(out, in)``, in the number type that the base is held in.
        spec: The recipe's ``quantization`` section.
    """
    from bitsandbytes.functional import (
        dequantize_4bit,
        int8_vectorwise_dequant,
        int8_vectorwise_quant,
        quantize_4bit,
    )

    if spec.method == "int8":
        rows, constants, _ = int8_vectorwise_quant(weight.to(torch.float16))
        unpacked: Tensor = int8_vectorwise_dequant(rows, constants)
        return unpacked.to(weight.dtype)
    packed, state = quantize_4bit(
        weight, blocksize=64, compress_statistics=spec.double_quant, quant_type=spec.method
    )
    dense: Tensor = dequantize_4bit(packed, state)
    return dense


def _reader(module: nn.Module) -> Callable[[], Tensor]:
    assert isinstance(module, nn.Linear)
    return lambda: dense_weight(module).float().cpu()


class _Unpacked(torch.autograd.Function):
    """A product with a packed weight, which is unpacked again in the backward pass."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, layer: nn.Linear) -> Tensor:
        ctx.layer = layer
        return product(x, dense_weight(layer), layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        return torch.mm(grad, dense_weight(ctx.layer)), None


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    flat = x.reshape(-1, x.shape[-1]).to(number_type(layer))
    y: Tensor = _Unpacked.apply(flat, layer)
    return y.unflatten(0, x.shape[:-1]).to(x.dtype)
