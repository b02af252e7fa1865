"""What a 4-bit layer really multiplies with: its dequantised weights.

An adapter on a 4-bit base learned to correct these, not the original ones, so a merge adds to these
(QLoRA, arXiv 2305.14314; merging elsewhere loses quality, peft issues 1043, 2105, 2321).
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def dequantized_weights(model: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Module name to a function that makes its dense weight, float32 ``(out, in)``, for every 4-bit layer.

    Args:
        model: A model, or a PeftModel; names are those of the base model either way.
    """
    return {
        name.removeprefix("base_model.model.").removesuffix(".base_layer"): _reader(module)
        for name, module in model.named_modules()
        if type(module).__name__ == "Linear4bit" and hasattr(module.weight, "quant_state")
    }


def _reader(module: nn.Module) -> Callable[[], Tensor]:
    def read() -> Tensor:
        from bitsandbytes.functional import dequantize_4bit

        weight: Any = module.weight
        dense: Tensor = dequantize_4bit(weight.data, weight.quant_state)
        return dense.float().cpu()

    return read
