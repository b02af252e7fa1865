"""A step of LLaMA's decoder for few tokens on a CPU, where calls and copies cost as much as the products.

The same mathematics as transformers' LlamaModel. States are columns, ``(H, N)``, because W x is the quick
order for few columns (``few_rows``); what is added goes into the product before it.
"""

from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import silu
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel, LlamaRMSNorm

from lora_kit.model import fused_llama
from lora_kit.model.attention import ON_THE_MASK
from lora_kit.model.cached_attention import look_back
from lora_kit.model.few_rows import ALONE, columns_at
from lora_kit.model.kv_cache import KeyValueCache
from lora_kit.model.lora_ops import Adapter, Projections
from lora_kit.model.quantize import is_packed

Rotation: TypeAlias = tuple[Tensor, Tensor]  # cosines, and sines whose first half is negated, (D, N)


def fits(base: Any) -> bool:  # noqa: ANN401 - any model
    """Whether :func:`states` computes what transformers would for a model as it is now."""
    if base.device.type != "cpu" or not fused_llama.fits(base):
        return False
    parts = (part for layer in base.model.layers for part in fused_llama.parts_of(layer))
    return not any(is_packed(linear) for part in parts for linear in part.bases)


def states(model: LlamaModel, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """Run the decoder, norm included.

    Args:
        model: The decoder, of a model that :func:`fits`.
        ids: Int64 ``(N,)``.
        positions: Int64 ``(1, N)``.
        mask: From ``cached_attention.mask_for``; it carries the cache.

    Returns:
        Float ``(N, H)``.
    """
    rows = model.embed_tokens(ids)
    cos, sin = (part[0].t() for part in model.rotary_emb(rows, positions))
    half = len(sin) // 2
    rotation = _widened(cos), _widened(torch.cat((-sin[:half], sin[half:])))
    x = _widened(rows.t())
    for number, layer in enumerate(model.layers):
        x = _layer(layer, number, x, rotation, mask, len(ids))
    return _normed(x, model.norm)[:, : len(ids)].t()


def _layer(
    layer: LlamaDecoderLayer, number: int, x: Tensor, rotation: Rotation, mask: Tensor, count: int
) -> Tensor:
    qkv, out, gate_up, down = fused_llama.parts_of(layer)
    size, width = layer.self_attn.head_dim, x.shape[1]
    y = _outputs(qkv, _normed(x, layer.input_layernorm))
    queries, keys = (base.out_features // size for base in qkv.bases[:2])
    heads = y.view(-1, size, width)
    heads[: queries + keys] = _rotated(heads[: queries + keys], rotation)
    cache: KeyValueCache = getattr(mask, ON_THE_MASK)["kv_cache"]
    pairs = heads[queries:, :, :count].unflatten(0, (2, keys)).permute(3, 1, 0, 2)
    known = cache.take_in(pairs, number)
    query = heads[:queries, :, :count].permute(2, 0, 1) * layer.self_attn.scaling
    x = _add(x, out, _widened(look_back(query, known, mask, number).flatten(1).t()))
    gate, up = _outputs(gate_up, _normed(x, layer.post_attention_layernorm)).chunk(2)
    return _add(x, down, torch.mul(silu(gate, inplace=True), up, out=_room(gate)))


def _widened(columns: Tensor) -> Tensor:
    """Add columns of zeros up to ``few_rows.columns_at``."""
    count = columns.shape[1]
    width = columns_at(count)
    if width == count:
        return columns
    rows = columns.new_zeros(width, len(columns))
    rows[:count] = columns.t()
    return rows.t()


def _room(like: Tensor) -> Tensor:
    """Return room for columns, in the order that is quick to multiply."""
    rows, width = like.shape
    return like.new_empty(width, rows).t() if width <= ALONE else like.new_empty(rows, width)


def _outputs(part: Projections, x: Tensor) -> Tensor:
    """What the layers of a part give, ``(sum of out, N)``."""
    found = x.new_empty(part.out, x.shape[1])
    at = 0
    for base in part.bases:
        own = found[at : (at := at + base.out_features)]
        torch.mm(base.weight, x, out=own)
        if base.bias is not None:
            own += base.bias[:, None]
    for adapter in part.adapters():  # two for a layer that PiSSA began
        _adapt(found[adapter.out], adapter, x)
    return found


def _add(x: Tensor, part: Projections, h: Tensor) -> Tensor:
    """Return x plus what the only layer of a part gives."""
    (base,) = part.bases
    total = torch.addmm(x, base.weight, h)
    if base.bias is not None:
        total += base.bias[:, None]
    for adapter in part.adapters():
        _adapt(total, adapter, h)
    return total


def _adapt(output: Tensor, adapter: Adapter, x: Tensor) -> None:
    output.addmm_(adapter.up, torch.mm(adapter.down, x), alpha=adapter.scaling)


def _normed(x: Tensor, norm: LlamaRMSNorm) -> Tensor:
    scale = (x * x).mean(0, keepdim=True).add_(norm.variance_epsilon).rsqrt_()
    return torch.mul(x * scale, norm.weight[:, None], out=_room(x))


def _rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate ``(heads, D, N)``: (a cos - b sin, b cos + a sin) for halves a and b."""
    cos, sin = rotation
    return (x * cos).addcmul_(x.roll(len(cos) // 2, 1), sin)
