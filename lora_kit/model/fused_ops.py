"""A decoder layer as autograd functions that keep little: norm + q/k/v + rotation, norm + gated MLP.

Norms and the gated product are made again in the backward pass, where they cost nothing beside the matrix
products. The mathematics is transformers' LlamaDecoderLayer; ``fused_llama`` puts it together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora_kit.model.lora_ops import (
    Product,
    grad_of_down,
    grad_of_input,
    parameters_of,
    product_back,
    project,
    project_back,
)

Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type
Norm: TypeAlias = tuple[Tensor, float]  # weight and epsilon


def _inverse_rms(x: Tensor, epsilon: float) -> Tensor:
    """Return ``(T, 1)``, in x's number type (transformers rounds float64 to float32 here; we need not)."""
    return x.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        scale = _inverse_rms(x, epsilon)
        ctx.save_for_backward(x, scale, weight)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_output: Tensor) -> tuple[Tensor, None, None]:
        x, scale, weight = ctx.saved_tensors
        return _norm_back(grad_output * weight, x * scale, scale), None, None


def normed(x: Tensor, norm: Norm) -> Tensor:
    """Return x / rms(x) times the weight, ``(T, H)``."""
    result: Tensor = _RmsNorm.apply(x, *norm)
    return result


def _norm_back(grad: Tensor, unit: Tensor, scale: Tensor) -> Tensor:
    """Gradient through x / rms(x); ``grad`` is consumed, ``unit`` is x / rms(x)."""
    along = torch.einsum("th,th->t", grad, unit)[:, None].div_(-grad.shape[-1])
    return grad.addcmul_(unit, along).mul_(scale)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor], *, back: bool = False) -> Tensor:
    """Rotate ``(T, heads, D)``: (a cos - b sin, b cos + a sin) for halves a and b; inversely if ``back``."""
    cos, sin = rotation
    swapped = x.roll(x.shape[-1] // 2, -1)
    return torch.addcmul(x * cos, swapped, sin, value=-1.0 if back else 1.0)


class Kept(NamedTuple):
    """What a norm and the product behind it keep for the backward pass.

    Args:
        x: Float ``(T, H)``, the norm's input.
        scale: ``(T, 1)``, one over its root mean square.
        states: ``(T, sum of R)``, the product's rank-R states.
        masks: Its dropout masks.
    """

    x: Tensor
    scale: Tensor
    states: Tensor
    masks: Sequence[Tensor | None]


def _normed_product(x: Tensor, norm: Norm, product: Product) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Multiply norm(x); returns 1 / rms(x) and what :func:`project` returns."""
    scale = _inverse_rms(x, norm[1])
    y, masks = project(*product, (x * scale).mul_(norm[0]))
    return scale, y, masks


def _normed_product_back(
    product: Product, weight: Tensor, kept: Kept, grad: Tensor, *, needed: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of the norm's input, and of the product's A and B; ``weight`` is the norm's."""
    projections, adapters = product
    ups = project_back(projections, adapters, kept.states, grad)
    unit = kept.x * kept.scale
    downs = grad_of_down(projections, adapters, unit * weight, kept.masks, grad)
    into = None
    if needed:
        into = grad_of_input(projections, adapters, kept.masks, grad).mul_(weight)
        into = _norm_back(into, unit, kept.scale)
    return into, [*downs, *ups]


class _QueryKeyValue(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        norm: Norm,
        rotation: tuple[Tensor, Tensor],
        head_dim: int,
        product: Product,
        *_: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        scale, y, masks = _normed_product(x, norm, product)
        sizes = [base.out_features for base in product[0].bases]
        query, key, value = (part.unflatten(1, (-1, head_dim)) for part in y[:, : sum(sizes)].split(sizes, 1))
        query.copy_(rotate(query, rotation))
        key.copy_(rotate(key, rotation))
        ctx.norm, ctx.rotation, ctx.product, ctx.masks = norm, rotation, product, len(masks)
        ctx.save_for_backward(x, scale, y[:, sum(sizes) :].clone(), *masks)
        return query.transpose(0, 1)[None], key.transpose(0, 1)[None], value.transpose(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, states, *masks = ctx.saved_tensors
        projections = ctx.product[0]
        grad = x.new_empty(len(x), projections.out + states.shape[1])
        sizes = [base.out_features for base in projections.bases]
        for place, own, turned in zip(
            grad[:, : projections.out].split(sizes, 1), grads, (True, True, False), strict=True
        ):
            heads = own[0].transpose(0, 1)
            place.unflatten(1, heads.shape[1:]).copy_(
                rotate(heads, ctx.rotation, back=True) if turned else heads
            )
        kept = Kept(x, scale, states, masks)
        into, weights = _normed_product_back(
            ctx.product, ctx.norm[0], kept, grad, needed=ctx.needs_input_grad[0]
        )
        return into, None, None, None, None, *weights


class _AddProjection(torch.autograd.Function):
    """x + projection of ``attended``."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, attended: Tensor, product: Product, *_: Tensor) -> Tensor:
        y, masks = project(*product, attended)
        ctx.product = product
        out = product[0].out
        ctx.save_for_backward(attended, y[:, out:].clone(), *masks)
        return x + y[:, :out]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        attended, states, *masks = ctx.saved_tensors
        into, weights = product_back(
            ctx.product, attended, states, masks, grad_output, needed=ctx.needs_input_grad[1]
        )
        return grad_output, into, None, *weights


class _AddGatedMlp(torch.autograd.Function):
    """x + down(silu(gate(norm(x))) * up(norm(x)))."""

    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        norm: Norm,
        first: Product,
        second: Product,
        *_: Tensor,
    ) -> Tensor:
        scale, y, masks = _normed_product(x, norm, first)
        gate, up = y[:, : first[0].out].chunk(2, 1)
        z, more = project(*second, nn.functional.silu(gate).mul_(up))
        ctx.norm, ctx.first, ctx.second, ctx.masks = norm, first, second, len(masks)
        ctx.save_for_backward(x, scale, y, z[:, second[0].out :].clone(), *masks, *more)
        return x + z[:, : second[0].out]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, y, states, *masks = ctx.saved_tensors
        first, second = ctx.first, ctx.second
        gate, up = y[:, : first[0].out].chunk(2, 1)
        active = nn.functional.silu(gate)
        into, weights = product_back(
            second, active * up, states, masks[ctx.masks :], grad_output, needed=True
        )
        assert into is not None
        grad = torch.empty_like(y)
        grad_gate, grad_up = grad[:, : first[0].out].chunk(2, 1)
        torch.mul(into, active, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(into.mul_(up), gate, grad_input=grad_gate)
        del into, active
        kept = Kept(x, scale, y[:, first[0].out :], masks[: ctx.masks])
        below, more = _normed_product_back(first, ctx.norm[0], kept, grad, needed=ctx.needs_input_grad[0])
        return None if below is None else below.add_(grad_output), None, None, None, *more, *weights


def query_key_value(
    x: Tensor, norm: Norm, rotation: tuple[Tensor, Tensor], head_dim: int, product: Product
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rotated queries, rotated keys and values of norm(x), each ``(1, heads, T, D)``.

    Args:
        x: Float ``(T, H)``.
        norm: Weight and epsilon.
        rotation: Cosines and sines, as :func:`rotate` takes them.
        head_dim: D.
        product: q, k and v.
    """
    query, key, value = _QueryKeyValue.apply(x, norm, rotation, head_dim, product, *parameters_of(product[1]))
    return query, key, value


def add_projection(x: Tensor, attended: Tensor, product: Product) -> Tensor:
    """Return x + the projection of ``attended``, ``(T, H)``."""
    result: Tensor = _AddProjection.apply(x, attended, product, *parameters_of(product[1]))
    return result


def add_gated_mlp(x: Tensor, norm: Norm, first: Product, second: Product) -> Tensor:
    """Return x + down(silu(gate(norm(x))) * up(norm(x))), ``(T, H)``.

    Args:
        x: Float ``(T, H)``.
        norm: Weight and epsilon.
        first: Gate and up.
        second: Down.
    """
    weights = parameters_of(first[1]) + parameters_of(second[1])
    result: Tensor = _AddGatedMlp.apply(x, norm, first, second, *weights)
    return result
