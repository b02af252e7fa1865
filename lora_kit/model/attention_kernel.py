"""Causal attention of one segment on a CPU, as batched products, the query heads of a group folded in rows.

torch's flash kernel for the CPU runs its backward pass at a quarter of a product's rate (head size 64). A
short segment's (L, L) probabilities fit in the cache, so plain products, with the G query heads that share a
key head as G x L rows of one product, are faster forward and backward although they also compute what the
mask hides; queries go in blocks that see only the keys up to their end, which spares most of that. Long
segments and other devices keep torch's kernel (flash on CUDA). The probabilities are kept for the backward
pass.
"""

from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

LONGEST = 384  # tokens; above it the probabilities cost more memory than the rest of the layer's states
BLOCK = 128
SOFTMAX_BACK = torch.ops.aten._softmax_backward_data.default  # noqa: SLF001 - what autograd itself calls
Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type


def causal_attention(query: Tensor, key: Tensor, value: Tensor, *, scaling: float, dropout: float) -> Tensor:
    """Attend causally within one segment.

    Args:
        query: Float ``(1, heads, L, D)``.
        key: Float ``(1, key-value heads, L, D)``.
        value: Like ``key``.
        scaling: Factor of the scores.
        dropout: Probability of dropping an attention weight.

    Returns:
        Float ``(1, heads, L, D)``.
    """
    if by_products(query, dropout):
        output: Tensor = _Products.apply(query, key, value, scaling)
        return output
    return scaled_dot_product_attention(
        query,
        key,
        value,
        dropout_p=dropout,
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def by_products(query: Tensor, dropout: float) -> bool:
    """Whether plain products are the faster way here."""
    full = query.dtype.itemsize >= 4 and not torch.is_autocast_enabled(query.device.type)
    return query.device.type == "cpu" and query.shape[2] <= LONGEST and not dropout and full


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        heads, groups = fold(query, key), key.shape[1]
        keys, values = key[0], value[0]
        output = torch.empty(*heads.shape, dtype=query.dtype)
        kept = []
        for first, last in blocks(query.shape[2]):
            rows = heads[:, :, first:last].reshape(groups, -1, query.shape[3])
            weights = probabilities(rows, keys[:, :last], last - first, scaling)
            kept.append(weights)
            output[:, :, first:last] = torch.bmm(weights, values[:, :last]).unflatten(1, (-1, last - first))
        ctx.scaling = scaling
        ctx.save_for_backward(query, key, value, *kept)
        return output.flatten(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, *kept = ctx.saved_tensors
        heads, above, groups = fold(query, key), fold(grad_output, key), key.shape[1]
        grad_query = torch.empty(*heads.shape, dtype=query.dtype)
        grad_key, grad_value = torch.zeros_like(key[0]), torch.zeros_like(value[0])
        for (first, last), weights in zip(blocks(query.shape[2]), kept, strict=True):
            rows = heads[:, :, first:last].reshape(groups, -1, query.shape[3])
            outer = above[:, :, first:last].reshape(groups, -1, query.shape[3])
            grad_value[:, :last] += torch.bmm(weights.transpose(1, 2), outer)
            inner = torch.bmm(outer, value[0, :, :last].transpose(1, 2))
            scores = SOFTMAX_BACK(inner, weights, -1, weights.dtype)
            own = torch.bmm(scores, key[0, :, :last]).mul_(ctx.scaling)
            grad_query[:, :, first:last] = own.unflatten(1, (-1, last - first))
            grad_key[:, :last] += torch.bmm(scores.transpose(1, 2), rows).mul_(ctx.scaling)
        return grad_query.flatten(0, 1)[None], grad_key[None], grad_value[None], None


def fold(query: Tensor, key: Tensor) -> Tensor:
    """Return query heads by key head, ``(key-value heads, G, L, D)``."""
    return query[0].unflatten(0, (key.shape[1], -1))


def blocks(length: int) -> list[tuple[int, int]]:
    """Cut queries into equal blocks of at most BLOCK: (first, last) of each."""
    count = -(-length // BLOCK)
    return list(pairwise([length * n // count for n in range(count + 1)]))


def probabilities(rows: Tensor, keys: Tensor, count: int, scaling: float) -> Tensor:
    """Attention weights of queries that stand at the last keys.

    Args:
        rows: Float ``(key-value heads, G x count, D)``, the queries of all heads of a group.
        keys: Float ``(key-value heads, K, D)``, those of the queries' own tokens last.
        count: Queries of one head.
        scaling: Factor of the scores.

    Returns:
        ``(key-value heads, G x count, K)``.
    """
    scores = torch.bmm(rows, keys.transpose(1, 2)).mul_(scaling)
    future = torch.ones(count, count, dtype=torch.bool, device=rows.device).triu_(1)
    scores.unflatten(1, (-1, count))[..., -count:].masked_fill_(future, float("-inf"))
    return torch.softmax(scores, dim=-1)
