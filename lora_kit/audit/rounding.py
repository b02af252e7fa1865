"""How far two ways to compute the same may differ, by the coarsest number type that products are made in."""

from typing import NamedTuple

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from lora_kit.model.bare import bare_model
from lora_kit.model.engine import engine_of
from lora_kit.model.quantize import is_packed, number_type


class Rounding(NamedTuple):
    """Most that rounding explains. Rows that see each other differ by more than ten times as much.

    Args:
        same_nats: Of the loss, a token, where the same rows are computed in the same way.
        nats: Of the loss, a token, where rows are laid out otherwise.
        gradient: Of the gradient, as a share of its length.
    """

    same_nats: float
    nats: float
    gradient: float


BY_TYPE = {
    torch.float64: Rounding(1e-9, 1e-9, 1e-9),
    torch.float32: Rounding(1e-5, 1e-4, 1e-3),
    torch.bfloat16: Rounding(0.01, 0.02, 0.1),
}


def rounding_of(model: PreTrainedModel | PeftModel) -> Rounding:
    """Return what is explained by rounding in a model as it computes now."""
    base = bare_model(model)
    types = {base.get_input_embeddings().weight.dtype, engine_of(base).autocast}
    linears = (layer for layer in base.modules() if isinstance(layer, nn.Linear))
    # None for 4 bits that are unpacked to another type than the layer computes in: bfloat16 is the coarsest.
    types |= {number_type(layer) or torch.bfloat16 for layer in linears if is_packed(layer)}
    return max((BY_TYPE[kind] for kind in types if kind is not None), key=lambda one: one.nats)
