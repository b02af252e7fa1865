"""What a layer really multiplies with: for a 4-bit one, its dequantised weights.

An adapter on a 4-bit base learned to correct these, not the original ones, so a merge adds to these
(QLoRA, arXiv 2305.14314; merging elsewhere loses quality, peft issues 1043, 2105, 2321).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lora_kit.recipe.schema import QuantizationSpec


def dequantized_weights(model: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Module name to a function that makes its dense weight, float32 ``(out, in)``, for every 4-bit layer.

    Args:
        model: A model, or a PeftModel; names are those of the base model either way.
    """
    return {
        name.removeprefix("base_model.model.").removesuffix(".base_layer"): _reader(module)
        for name, module in model.named_modules()
        if is_four_bit(module) and hasattr(module.weight, "quant_state")
    }


def is_four_bit(module: nn.Module) -> bool:
    """Whether this is bitsandbytes' own layer (peft's wrapper has the same name), without importing it."""
    return type(module).__name__ == "Linear4bit" and isinstance(module, nn.Linear)


def number_type(layer: nn.Linear) -> torch.dtype | None:
    """Return the type that a layer multiplies in; None if its 4 bits are unpacked to another type."""
    if not is_four_bit(layer):
        return layer.weight.dtype
    weight: Any = layer.weight
    held: torch.dtype = weight.quant_state.dtype
    return held if layer.compute_dtype == held else None


def dense_weight(layer: nn.Linear) -> Tensor:
    """Return a layer's frozen weight, ``(out, in)``: unpacked, in a tensor of its own, if it has 4 bits.

    The numbers are those that bitsandbytes' own forward multiplies with; unpacking takes about a twentieth of
    a product with 500 tokens.
    """
    if not is_four_bit(layer):
        return layer.weight.detach()
    from bitsandbytes.functional import dequantize_4bit

    weight: Any = layer.weight
    dense: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return dense


def as_four_bits_hold(weight: Tensor, spec: QuantizationSpec) -> Tensor:
    """Round a weight to 4 bits and back, with bitsandbytes' blocks of 64, as a 4-bit base holds it.

    Args:
        weight: Float ``(out, in)``, in the number type that the base is held in.
        spec: The recipe's ``quantization`` section.
    """
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(
        weight, blocksize=64, compress_statistics=spec.double_quant, quant_type=spec.method
    )
    dense: Tensor = dequantize_4bit(packed, state)
    return dense


def _reader(module: nn.Module) -> Callable[[], Tensor]:
    assert isinstance(module, nn.Linear)
    return lambda: dense_weight(module).float().cpu()
