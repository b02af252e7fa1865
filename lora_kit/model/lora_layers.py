"""peft's LoRA layers, computing themselves with the packed products of ``lora_ops`` while they are plain."""

from types import MethodType
from typing import Any, TypeAlias

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lora_kit.model.lora_ops import (
    ADAPTER,
    START,
    Adapter,
    Product,
    Projections,
    has_magnitudes,
    is_plain,
    parameters_of,
    product_back,
    project,
)

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
    usual = not (args or kwargs or layer.disable_adapters or x.dtype != layer.base_layer.weight.dtype)
    if usual and has_magnitudes(layer):
        return _at_its_lengths(layer, x)
    if not usual or not is_plain(layer):
        if START in vars(layer) and not layer.disable_adapters:
            return _from_its_start(layer, x)
        slow: Tensor = LoraLinear.forward(layer, x, *args, **kwargs)
        return slow
    return linear(layer.lora_kit_projections, x)


def _at_its_lengths(layer: LoraLinear, x: Tensor) -> Tensor:
    """DoRA (arXiv 2402.09353): each row of W + scaling B A is brought to its trained length.

    The lengths that the rows have are constants for the gradient, as in section 4.3 of the paper and in peft.
    """
    projections, magnitude = layer.lora_kit_projections, layer.lora_magnitude_vector[ADAPTER].weight
    stretch, bias = magnitude / _lengths(layer, projections), projections.bias()
    y = linear(projections, x)
    return y * stretch if bias is None else (y - bias) * stretch + bias


@torch.no_grad()
def _lengths(layer: LoraLinear, projections: Projections) -> Tensor:
    """Return the lengths of the rows of W + scaling B A, ``(out,)``; remembered while A and B stay."""
    [adapter] = projections.adapters()
    down, up, lengths = vars(layer).get("lora_kit_lengths", (adapter.down[:0], adapter.up[:0], None))
    if lengths is None or not (torch.equal(down, adapter.down) and torch.equal(up, adapter.up)):
        lengths = row_lengths(layer.base_layer.weight, adapter)
        vars(layer)["lora_kit_lengths"] = adapter.down.clone(), adapter.up.clone(), lengths
    return lengths


def row_lengths(weight: Tensor, adapter: Adapter) -> Tensor:
    """Return the lengths of the rows of W + scaling B A, ``(out,)``, from products of rank R."""
    down, up, factor = adapter.down, adapter.up, adapter.scaling
    crossed = torch.mm(weight, down.t()).mul_(up).sum(1)
    own = torch.mm(up, torch.mm(down, down.t())).mul_(up).sum(1)
    return (weight.square().sum(1) + 2 * factor * crossed + factor**2 * own).sqrt_()


def _from_its_start(layer: LoraLinear, x: Tensor) -> Tensor:
    """Compute as peft's forward does, with PiSSA's first factors; what they add together is rounded once."""
    start, down, up = vars(layer)[START], layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    result: Tensor = layer.base_layer(x)
    wide = x.to(down.weight.dtype)
    update = up(down(layer.lora_dropout[ADAPTER](wide))) + functional.linear(
        functional.linear(wide, start.down), start.up
    )
    return (result + update * layer.scaling[ADAPTER]).to(result.dtype)
