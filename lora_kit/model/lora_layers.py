"""peft's LoRA layers, computing themselves with the packed products of ``lora_ops`` while they are plain."""

from types import MethodType
from typing import Any, TypeAlias

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora_kit.model.lora_ops import Product, Projections, is_plain, parameters_of, product_back, project

Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type


class _Linear(torch.autograd.Function):
    """Projections by themselves: keeps the input and the rank-R states."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, product: Product, *_: Tensor) -> Tensor:
        y, masks = project(*product, x)
        ctx.product, out = product, product[0].out
        ctx.save_for_backward(x, y[:, out:].clone(), *masks)
        return y[:, :out]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, states, *masks = ctx.saved_tensors
        into, weights = product_back(
            ctx.product, x, states, masks, grad_output, needed=ctx.needs_input_grad[0]
        )
        return into, None, *weights


def linear(projections: Projections, x: Tensor) -> Tensor:
    """Return the outputs of the layers side by side, ``(..., out)``; differentiable in x, A and B."""
    adapters = projections.adapters()
    flat = x.reshape(-1, x.shape[-1])
    y: Tensor = _Linear.apply(flat, (projections, adapters), *parameters_of(adapters))
    return y.unflatten(0, x.shape[:-1])


def quicken(model: nn.Module) -> None:
    """Let every adapted layer of a model compute itself with :func:`linear` while it is plain."""
    for layer in model.modules():
        if type(layer) is LoraLinear and type(layer.base_layer) is nn.Linear:
            layer.forward = MethodType(_forward, layer)
            vars(layer)["lora_kit_projections"] = Projections([layer])


def _forward(layer: LoraLinear, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - peft's
    if (
        args
        or kwargs
        or layer.disable_adapters
        or not is_plain(layer)
        or x.dtype != layer.base_layer.weight.dtype
    ):
        slow: Tensor = LoraLinear.forward(layer, x, *args, **kwargs)
        return slow
    return linear(layer.lora_kit_projections, x)
