"""A step of LLaMA's decoder for few tokens on a CPU, where calls and copies cost as much as the products.

The same mathematics as transformers' LlamaModel. States are columns, ``(H, N)``, because W x is the quick
order for few columns (``few_rows``); what is added goes into the product before it.
"""

from itertools import accumulate
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import silu
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel, LlamaRMSNorm

from lora_kit.model import fused_llama
from lora_kit.model.cached_attention import cached_attention
from lora_kit.model.few_rows import filled, times
from lora_kit.model.lora_ops import Adapter, Projections
from lora_kit.model.quantize import is_packed

Rotation: TypeAlias = tuple[Tensor, Tensor]  # cosines and sines of half a head, (D / 2, N)


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
    cos, sin = (part[0, :, : part.shape[-1] // 2] for part in model.rotary_emb(rows, positions))
    x = _widened(rows)
    rotation = _widened(cos).contiguous(), _widened(sin).contiguous()
    for layer in model.layers:
        x = _layer(layer, x, rotation, mask, len(ids))
    return _normed(x, model.norm)[:, : len(ids)].t()


def _layer(layer: LlamaDecoderLayer, x: Tensor, rotation: Rotation, mask: Tensor, count: int) -> Tensor:
    attention, size = layer.self_attn, layer.self_attn.head_dim
    qkv, out, gate_up, down = fused_llama.parts_of(layer)
    outputs = _outputs(qkv, _normed(x, layer.input_layernorm))
    query, key, value = (output.view(-1, size, x.shape[1]) for output in outputs)
    turned = (_rotated(query, rotation), _rotated(key, rotation), value)
    query, key, value = (heads[:, :, :count].transpose(1, 2)[None] for heads in turned)
    seen, _ = cached_attention(attention, query, key, value, mask, scaling=attention.scaling)
    x = _add(x, out, _widened(seen[0].flatten(1)))
    gate, up = _outputs(gate_up, _normed(x, layer.post_attention_layernorm))
    return _add(x, down, silu(gate, inplace=True).mul_(up))


def _widened(rows: Tensor) -> Tensor:
    """Turn ``(N, K)`` into columns, ``(K, columns_at(N))``."""
    return filled(rows.t())


def _outputs(part: Projections, x: Tensor) -> list[Tensor]:
    """What each layer of a part gives, ``(out, N)``."""
    x = filled(x)
    found = [times(base.weight, base.bias, x) for base in part.bases]
    adapters = part.adapters()
    if adapters:
        starts = accumulate(map(len, found[:-1]), initial=0)
        at = dict(zip(starts, found, strict=True))
        for adapter in adapters:  # two for a layer that PiSSA began
            _adapt(at[adapter.out.start], adapter, x)
    return found


def _add(x: Tensor, part: Projections, h: Tensor) -> Tensor:
    """Return x plus what the only layer of a part gives."""
    (base,) = part.bases
    h = filled(h)
    total = torch.addmm(x, base.weight, h)
    if base.bias is not None:
        total += base.bias[:, None]
    for adapter in part.adapters():
        _adapt(total, adapter, h)
    return total


def _adapt(output: Tensor, adapter: Adapter, x: Tensor) -> None:
    output.addmm_(adapter.up, torch.mm(adapter.down, x), alpha=adapter.scaling)


def _normed(x: Tensor, norm: LlamaRMSNorm) -> Tensor:
    mean = (x * x).sum(0, keepdim=True).div_(len(x))
    scale = mean.add_(norm.variance_epsilon).rsqrt_()
    return (x * scale).mul_(norm.weight[:, None])


def _rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate ``(heads, D, N)``: (a cos - b sin, b cos + a sin) for halves a and b."""
    cos, sin = rotation
    first, second = x.chunk(2, 1)
    out = torch.empty_like(x)
    low, high = out.chunk(2, 1)
    torch.mul(first, cos, out=low).addcmul_(second, sin, value=-1.0)
    torch.mul(second, cos, out=high).addcmul_(first, sin)
    return out
