"""LLaMA's decoder with few and large operations, which keep little for the backward pass.

The same mathematics as transformers' LlamaModel. A layer keeps its two inputs, the rotated q, k and v, the
attention's output, gate and up, and rank-R states; norms and the gated product are made again in the backward
pass, where they cost nothing beside the matrix products. Norm, projection and rotation are one autograd
function, so that q, k and v need no tensors of their own; so are norm, gate, up, product and down. Below the
first adapter nothing is kept, and the last layer computes its output only where a target is predicted.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaModel,
    LlamaRMSNorm,
)

from lora_kit.model.attention import SEGMENT_ATTENTION, segment_attention
from lora_kit.model.lora_ops import (
    Adapter,
    Projections,
    autocasts,
    grad_of_down,
    grad_of_input,
    is_plain,
    parameters_of,
    project,
    project_back,
)

Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type
Norm: TypeAlias = tuple[Tensor, float]  # weight and epsilon


def fits(base: Any) -> bool:  # noqa: ANN401 - any model
    """Whether this decoder computes what transformers would for a model as it is now."""
    if type(base) is not LlamaForCausalLM:
        return False
    config, weight = base.config, base.model.embed_tokens.weight
    usual = (
        config._attn_implementation == SEGMENT_ATTENTION  # noqa: SLF001 - no public name
        and config.hidden_act == "silu"
        and not (base.training and config.attention_dropout)
        and weight.dtype in (torch.float32, torch.float64)
        and not weight.requires_grad
        and not autocasts(weight)
    )
    return usual and all(_is_plain(layer, weight.dtype) for layer in base.model.layers)


def states(
    model: LlamaModel, ids: Tensor, positions: Tensor, predict_at: Tensor, who_sees_whom: dict[str, Any]
) -> Tensor:
    """Run the decoder, norm included.

    Args:
        model: The decoder, of a model that :func:`fits`.
        ids: Int64 ``(1, T)``.
        positions: Int64 ``(1, T)``.
        predict_at: Int64 ``(N,)``, the positions whose states are wanted.
        who_sees_whom: The attention's arguments.

    Returns:
        Float ``(N, H)``.
    """
    x: Tensor = model.embed_tokens(ids)[0]
    rotation = _rotation(model, x, positions)
    for number, layer in enumerate(model.layers):
        wanted = predict_at if number == len(model.layers) - 1 else None
        arguments = (layer, x, rotation, wanted, who_sees_whom)
        if layer.gradient_checkpointing and layer.training:
            random = any(adapter.dropout for part in _parts(layer) for adapter in part.adapters())
            x = checkpoint(_layer, *arguments, use_reentrant=False, preserve_rng_state=random)
        else:
            x = _layer(*arguments)
    return _normed(x, *_norm(model.norm))


def _layer(
    layer: LlamaDecoderLayer,
    x: Tensor,
    rotation: tuple[Tensor, Tensor],
    wanted: Tensor | None,
    who: dict[str, Any],
) -> Tensor:
    attention = layer.self_attn
    qkv, out, gate_up, down = _parts(layer)
    adapters = qkv.adapters()
    weights = parameters_of(adapters)
    query, key, value = _QueryKeyValue.apply(
        x, _norm(layer.input_layernorm), rotation, attention.head_dim, (qkv, adapters), *weights
    )
    attended, _ = segment_attention(
        attention, query, key, value, scaling=attention.scaling, dropout=0.0, **who
    )
    attended = attended.flatten(2)[0]
    if wanted is not None:
        attended, x = attended.index_select(0, wanted), x.index_select(0, wanted)
    adapters = out.adapters()
    x = _AddProjection.apply(x, attended, (out, adapters), *parameters_of(adapters))
    first, second = gate_up.adapters(), down.adapters()
    result: Tensor = _AddGatedMlp.apply(
        x,
        _norm(layer.post_attention_layernorm),
        (gate_up, first),
        (down, second),
        *parameters_of(first),
        *parameters_of(second),
    )
    return result


def _rotation(model: LlamaModel, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines as ``(T, 1, D)``, the first half of the sines negated: see :func:`_rotate`."""
    cos, sin = model.rotary_emb(x[None], positions)
    half = sin.shape[-1] // 2
    return cos[0, :, None], torch.cat((-sin[0, :, :half], sin[0, :, half:]), 1)[:, None]


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor], *, back: bool = False) -> Tensor:
    """Rotate ``(T, heads, D)``: (a cos - b sin, b cos + a sin) for the halves a and b."""
    cos, sin = rotation
    swapped = x.roll(x.shape[-1] // 2, -1)
    return torch.addcmul(x * cos, swapped, sin, value=-1.0 if back else 1.0)


def _parts(layer: LlamaDecoderLayer) -> tuple[Projections, Projections, Projections, Projections]:
    """The layer's products, made once and remembered on it."""
    found: tuple[Projections, ...] | None = getattr(layer, "lora_kit_parts", None)
    groups = _linears(layer)
    if found is None or any(part.layers != group for part, group in zip(found, groups, strict=True)):
        found = tuple(Projections(group) for group in groups)
        layer.lora_kit_parts = found
    qkv, out, gate_up, down = found
    return qkv, out, gate_up, down


def _linears(layer: LlamaDecoderLayer) -> list[tuple[nn.Module, ...]]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        (attention.q_proj, attention.k_proj, attention.v_proj),
        (attention.o_proj,),
        (mlp.gate_proj, mlp.up_proj),
        (mlp.down_proj,),
    ]


def _is_plain(layer: LlamaDecoderLayer, dtype: torch.dtype) -> bool:
    linears = [linear for group in _linears(layer) for linear in group]
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    return all(map(is_plain, linears)) and all(
        norm.weight.dtype == dtype and not norm.weight.requires_grad for norm in norms
    )


def _norm(norm: LlamaRMSNorm) -> Norm:
    return norm.weight, norm.variance_epsilon


# --- norm ---------------------------------------------------------------------------------------------------


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


def _normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    result: Tensor = _RmsNorm.apply(x, weight, epsilon)
    return result


def _norm_back(grad: Tensor, unit: Tensor, scale: Tensor) -> Tensor:
    """Gradient through x / rms(x); ``grad`` is consumed, ``unit`` is x / rms(x)."""
    along = torch.einsum("th,th->t", grad, unit)[:, None].div_(-grad.shape[-1])
    return grad.addcmul_(unit, along).mul_(scale)


# --- norm, q, k and v, rotation -----------------------------------------------------------------------------


class _QueryKeyValue(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        norm: Norm,
        rotation: tuple[Tensor, Tensor],
        head_dim: int,
        product: tuple[Projections, Sequence[Adapter]],
        *_: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        scale = _inverse_rms(x, norm[1])
        y, masks = project(*product, (x * scale).mul_(norm[0]))
        sizes = [base.out_features for base in product[0].bases]
        query, key, value = (part.unflatten(1, (-1, head_dim)) for part in y[:, : sum(sizes)].split(sizes, 1))
        query.copy_(_rotate(query, rotation))
        key.copy_(_rotate(key, rotation))
        ctx.norm, ctx.rotation, ctx.product, ctx.masks = norm, rotation, product, len(masks)
        ctx.save_for_backward(x, scale, y[:, sum(sizes) :].clone(), *masks)
        return query.transpose(0, 1)[None], key.transpose(0, 1)[None], value.transpose(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, states, *masks = ctx.saved_tensors
        projections, adapters = ctx.product
        grad = x.new_empty(len(x), projections.out + states.shape[1])
        sizes = [base.out_features for base in projections.bases]
        for place, own, turned in zip(
            grad[:, : projections.out].split(sizes, 1), grads, (True, True, False), strict=True
        ):
            heads = own[0].transpose(0, 1)
            place.unflatten(1, heads.shape[1:]).copy_(
                _rotate(heads, ctx.rotation, back=True) if turned else heads
            )
        ups = project_back(projections, adapters, states, grad)
        unit = x * scale
        downs = grad_of_down(projections, adapters, unit * ctx.norm[0], masks, grad)
        into = None
        if ctx.needs_input_grad[0]:
            into = grad_of_input(projections, adapters, masks, grad).mul_(ctx.norm[0])
            into = _norm_back(into, unit, scale)
        return into, None, None, None, None, *downs, *ups


# --- output projection --------------------------------------------------------------------------------------


class _AddProjection(torch.autograd.Function):
    """x + projection of ``attended``."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, attended: Tensor, product: tuple[Projections, Sequence[Adapter]], *_: Tensor
    ) -> Tensor:
        y, masks = project(*product, attended)
        ctx.product = product
        out = product[0].out
        ctx.save_for_backward(attended, y[:, out:].clone(), *masks)
        return x + y[:, :out]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        attended, states, *masks = ctx.saved_tensors
        into, weights = _back(
            ctx.product, attended, states, masks, grad_output, needed=ctx.needs_input_grad[1]
        )
        return grad_output, into, None, *weights


def _back(
    product: tuple[Projections, Sequence[Adapter]],
    x: Tensor,
    states: Tensor,
    masks: Sequence[Tensor | None],
    grad_output: Tensor,
    *,
    needed: bool,
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of a product's input, and of its A and B."""
    projections, adapters = product
    grad = _with_room(grad_output, states.shape[1])
    ups = project_back(projections, adapters, states, grad)
    downs = grad_of_down(projections, adapters, x, masks, grad)
    return grad_of_input(projections, adapters, masks, grad) if needed else None, [*downs, *ups]


def _with_room(grad: Tensor, columns: int) -> Tensor:
    """Copy into a wider tensor, whose last columns :func:`project_back` writes."""
    if not columns:
        return grad
    wide = grad.new_empty(len(grad), grad.shape[1] + columns)
    wide[:, : grad.shape[1]] = grad
    return wide


# --- norm, gated feed-forward -------------------------------------------------------------------------------


class _AddGatedMlp(torch.autograd.Function):
    """x + down(silu(gate(norm(x))) * up(norm(x)))."""

    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        norm: Norm,
        first: tuple[Projections, Sequence[Adapter]],
        second: tuple[Projections, Sequence[Adapter]],
        *_: Tensor,
    ) -> Tensor:
        scale = _inverse_rms(x, norm[1])
        y, masks = project(*first, (x * scale).mul_(norm[0]))
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
        into, weights = _back(second, active * up, states, masks[ctx.masks :], grad_output, needed=True)
        assert into is not None
        grad = torch.empty_like(y)
        grad_gate, grad_up = grad[:, : first[0].out].chunk(2, 1)
        torch.mul(into, active, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(into.mul_(up), gate, grad_input=grad_gate)
        del into, active
        masks = masks[: ctx.masks]
        projections, adapters = first
        ups = project_back(projections, adapters, y[:, projections.out :], grad)
        unit = x * scale
        downs = grad_of_down(projections, adapters, unit * ctx.norm[0], masks, grad)
        below = None
        if ctx.needs_input_grad[0]:
            below = grad_of_input(projections, adapters, masks, grad).mul_(ctx.norm[0])
            below = _norm_back(below, unit, scale).add_(grad_output)
        return below, None, None, None, *downs, *ups, *weights
