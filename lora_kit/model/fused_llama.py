"""LLaMA's decoder with few and large operations, which keep little for the backward pass.

The same mathematics as transformers' LlamaModel. A layer keeps its two inputs, the rotated q, k and v, the
attention's output, gate and up, and rank-R states; norms and the gated product are made again in the backward
pass, where they cost nothing beside the matrix products. Norm, projection and rotation are one autograd
function, so that q, k and v need no tensors of their own; so are norm, gate, up, product and down. Below the
first adapter nothing is kept, and the last layer computes its output only where a target is predicted.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaModel,
    LlamaRMSNorm,
)

from lora_kit.model.attention import SEGMENT_ATTENTION, segment_attention
from lora_kit.model.fused_ops import Norm, add_gated_mlp, add_projection, normed, query_key_value
from lora_kit.model.lora_ops import Projections, autocasts, is_plain


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


class Start(NamedTuple):
    """Where a decoder starts.

    Args:
        x: Float ``(T, H)``, what enters the first layer that runs.
        depth: Layers below it.
    """

    x: Tensor
    depth: int


def states(
    model: LlamaModel, start: Start, positions: Tensor, predict_at: Tensor, who_sees_whom: dict[str, Any]
) -> Tensor:
    """Run the decoder, norm included.

    Args:
        model: The decoder, of a model that :func:`fits`.
        start: From what; :func:`embedded` for all layers.
        positions: Int64 ``(1, T)``.
        predict_at: Int64 ``(N,)``, the positions whose states are wanted.
        who_sees_whom: The attention's arguments.

    Returns:
        Float ``(N, H)``.
    """
    x = _through(
        model.layers[start.depth :], start.x, _rotation(model, start.x, positions), predict_at, who_sees_whom
    )
    return normed(x, _norm(model.norm))


def embedded(model: LlamaModel, ids: Tensor) -> Start:
    """Start from token ids, int64 ``(1, T)``."""
    return Start(model.embed_tokens(ids)[0], 0)


def trunk_states(
    model: LlamaModel, ids: Tensor, positions: Tensor, who_sees_whom: dict[str, Any], depth: int
) -> Tensor:
    """Run the lowest ``depth`` layers; arguments as for :func:`states`. Returns float ``(T, H)``."""
    x = embedded(model, ids).x
    return _through(model.layers[:depth], x, _rotation(model, x, positions), None, who_sees_whom)


def _through(
    layers: nn.ModuleList,
    x: Tensor,
    rotation: tuple[Tensor, Tensor],
    predict_at: Tensor | None,
    who: dict[str, Any],
) -> Tensor:
    """Run layers, the last one's output only where it is wanted."""
    for number, layer in enumerate(layers):
        wanted = predict_at if number == len(layers) - 1 else None
        arguments = (layer, x, rotation, wanted, who)
        if layer.gradient_checkpointing and layer.training:
            random = any(adapter.dropout for part in parts_of(layer) for adapter in part.adapters())
            x = checkpoint(_layer, *arguments, use_reentrant=False, preserve_rng_state=random)
        else:
            x = _layer(*arguments)
    return x


def _layer(
    layer: LlamaDecoderLayer,
    x: Tensor,
    rotation: tuple[Tensor, Tensor],
    wanted: Tensor | None,
    who: dict[str, Any],
) -> Tensor:
    attention = layer.self_attn
    qkv, out, gate_up, down = ((part, part.adapters()) for part in parts_of(layer))
    query, key, value = query_key_value(x, _norm(layer.input_layernorm), rotation, attention.head_dim, qkv)
    attended, _ = segment_attention(
        attention, query, key, value, scaling=attention.scaling, dropout=0.0, **who
    )
    attended = attended.flatten(2)[0]
    if wanted is not None:
        attended, x = attended.index_select(0, wanted), x.index_select(0, wanted)
    x = add_projection(x, attended, out)
    return add_gated_mlp(x, _norm(layer.post_attention_layernorm), gate_up, down)


def _rotation(model: LlamaModel, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines as ``(T, 1, D)``, half of the sines negated, for ``fused_ops.rotate``."""
    cos, sin = model.rotary_emb(x[None], positions)
    half = sin.shape[-1] // 2
    return cos[0, :, None], torch.cat((-sin[0, :, :half], sin[0, :, half:]), 1)[:, None]


def parts_of(layer: LlamaDecoderLayer) -> tuple[Projections, Projections, Projections, Projections]:
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
