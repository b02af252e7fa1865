"""Causal attention of segments, each of which may continue others: a trie of rows laid out in one long row.

A segment's queries see the keys of all its ancestors, and causally its own. On a CPU this is plain products:
torch's flash kernel runs its backward pass at a quarter of a product's rate there (head size 64), and blocks
of queries that see only the keys up to their end spare most of what the mask hides. Query heads that share a
key head are rows of one product. Products of few key heads can't be dealt out evenly to the threads, so rows
are split until they can (3 heads on 2 threads: 48 against 63 GFLOP/s). Queries, keys and values are kept for
the backward pass, and the probabilities of short paths; those of long ones are made again.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

KEPT = 512  # tokens of a path whose probabilities are kept; above it they outweigh the layer's other states
BLOCK = 128
SOFTMAX_BACK = torch.ops.aten._softmax_backward_data.default  # noqa: SLF001 - what autograd itself calls
Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type
Path: TypeAlias = tuple[slice, ...]  # where the tokens are that a segment sees, its own last


def paths_of(lengths: Sequence[int], parents: Sequence[int]) -> list[Path]:
    """Return the path of each segment.

    Args:
        lengths: Tokens of each segment, in the order of the layout.
        parents: The segment that each continues, an earlier one; -1 for none.
    """
    paths: list[Path] = []
    start = 0
    for length, parent in zip(lengths, parents, strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), slice(start, start := start + length)))
    return paths


def branch_attention(
    query: Tensor, key: Tensor, value: Tensor, paths: Sequence[Path], *, scaling: float, dropout: float
) -> Tensor:
    """Attend from every segment.

    Args:
        query: Float ``(1, heads, T, D)``.
        key: Float ``(1, key-value heads, T, D)``.
        value: Like ``key``.
        paths: Of the segments, whose own tokens make up all T in order.
        scaling: Factor of the scores.
        dropout: Probability of dropping an attention weight.

    Returns:
        Float ``(1, heads, T, D)``.

    Raises:
        ValueError: The segments are not T tokens together.
    """
    if sum(_tokens(path[-1]) for path in paths) != query.shape[2]:
        raise ValueError(f"segments of other lengths than {query.shape[2]} tokens together")
    if _by_products(query, dropout):
        output: Tensor = _Products.apply(query, key, value, paths, scaling)
        return output
    pieces = [_by_torch(query, key, value, path, scaling=scaling, dropout=dropout) for path in paths]
    return torch.cat(pieces, dim=2)


def _by_products(query: Tensor, dropout: float) -> bool:
    full = query.dtype.itemsize >= 4 and not torch.is_autocast_enabled(query.device.type)
    return query.device.type == "cpu" and not dropout and full


def _by_torch(query: Tensor, key: Tensor, value: Tensor, path: Path, **chances: float) -> Tensor:
    """Attend from one segment with torch's kernel (flash on CUDA where there is no mask)."""
    rows, before = _tokens(path[-1]), sum(map(_tokens, path[:-1]))
    mask = None
    if before:
        mask = torch.ones(rows, before + rows, dtype=torch.bool, device=query.device).tril_(before)
    return scaled_dot_product_attention(
        query[:, :, path[-1]],
        torch.cat([key[:, :, part] for part in path], 2),
        torch.cat([value[:, :, part] for part in path], 2),
        attn_mask=mask,
        is_causal=mask is None,
        dropout_p=chances["dropout"],
        scale=chances["scaling"],
        enable_gqa=query.shape[1] != key.shape[1],
    )


class _Shape(NamedTuple):
    """Heads of a product: ``groups`` key heads, ``heads`` query heads for each, rows in ``split`` parts."""

    groups: int
    heads: int
    split: int

    def rows(self, states: Tensor, where: slice, factor: float) -> Tensor:
        """Return queries of all heads as rows, times a factor, ``(groups x split, rows, D)``; zeros fill."""
        part = states[0, :, where].unflatten(0, (self.groups, self.heads))
        count = self.heads * part.shape[2]
        each = -(-count // self.split)
        rows = part.new_empty(self.groups, self.split * each, part.shape[3])
        rows[:, count:] = 0
        torch.mul(part, factor, out=rows[:, :count].unflatten(1, (self.heads, -1)))
        return rows.view(-1, each, part.shape[3])

    def put(self, rows: Tensor, into: Tensor, where: slice, factor: float) -> None:
        """Write what :meth:`rows` returns back to ``(heads, T, D)``, times a factor."""
        part = into[:, where].unflatten(0, (self.groups, self.heads))
        count = self.heads * part.shape[2]
        torch.mul(
            rows.view(self.groups, -1, rows.shape[2])[:, :count].unflatten(1, (self.heads, -1)),
            factor,
            out=part,
        )

    def seen(self, states: Tensor, path: Path) -> Tensor:
        """Return the keys or values of a path, ``(groups x split, K, D)``."""
        found = torch.cat([states[0, :, part] for part in path], 1)
        return found if self.split == 1 else found.repeat_interleave(self.split, 0)

    def add(self, grads: Tensor, total: Tensor, path: Path) -> None:
        """Add what was found for a path to ``(groups, T, D)``."""
        if self.split > 1:
            grads = grads.unflatten(0, (self.groups, self.split)).sum(1)
        for part, grad in zip(path, grads.split([*map(_tokens, path)], 1), strict=True):
            total[:, part] += grad

    def weights(self, rows: Tensor, keys: Tensor, count: int) -> Tensor:
        """Weights ``(groups x split, rows, K)`` of ``count`` queries that stand at the last keys."""
        scores = torch.bmm(rows, keys.transpose(1, 2))
        real = scores.view(self.groups, -1, scores.shape[2])[:, : self.heads * count]
        real.unflatten(1, (self.heads, count))[..., -count:].masked_fill_(_future(count), float("-inf"))
        return torch.softmax(scores, dim=-1)


def _shape_of(query: Tensor, key: Tensor) -> _Shape:
    groups, threads = key.shape[1], torch.get_num_threads()
    even = math.lcm(groups, threads) // groups
    return _Shape(groups, query.shape[1] // groups, min(even, -(-threads // groups) + 1))


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context, query: Tensor, key: Tensor, value: Tensor, paths: Sequence[Path], scaling: float
    ) -> Tensor:
        shape, kept = _shape_of(query, key), []
        output = _token_major(query)
        for path in paths:
            keys, values = shape.seen(key, path), shape.seen(value, path)
            for own, count in _blocks(path):
                weights = shape.weights(shape.rows(query, own, scaling), keys[:, :count], _tokens(own))
                shape.put(torch.bmm(weights, values[:, :count]), output, own, 1.0)
                kept += [weights] if keys.shape[1] <= KEPT else []
        ctx.paths, ctx.scaling = paths, scaling
        ctx.save_for_backward(query, key, value, *kept)
        return output[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        shape, left, scaling = _shape_of(query, key), iter(kept), ctx.scaling
        to_query = _token_major(query)
        to_key, to_value = _token_major(key).zero_(), _token_major(value).zero_()
        for path in ctx.paths:
            keys, values = shape.seen(key, path), shape.seen(value, path)
            for_keys, for_values = torch.zeros_like(keys), torch.zeros_like(values)
            for own, count in _blocks(path):
                rows, above = shape.rows(query, own, scaling), shape.rows(grad_output, own, 1.0)
                weights = (
                    next(left)
                    if keys.shape[1] <= KEPT
                    else shape.weights(rows, keys[:, :count], _tokens(own))
                )
                for_values[:, :count].baddbmm_(weights.transpose(1, 2), above)
                inner = torch.bmm(above, values[:, :count].transpose(1, 2))
                scores = SOFTMAX_BACK(inner, weights, -1, weights.dtype)
                shape.put(torch.bmm(scores, keys[:, :count]), to_query, own, scaling)
                for_keys[:, :count].baddbmm_(scores.transpose(1, 2), rows)
            shape.add(for_keys, to_key, path)
            shape.add(for_values, to_value, path)
        return to_query[None], to_key[None], to_value[None], None, None


def _token_major(states: Tensor) -> Tensor:
    """Return room for ``(heads, T, D)`` that lies as projections write and read it: ``(T, heads, D)``."""
    heads, tokens, size = states.shape[1:]
    return states.new_empty(tokens, heads, size).transpose(0, 1)


def _tokens(part: slice) -> int:
    return int(part.stop - part.start)


def _blocks(path: Path) -> Iterator[tuple[slice, int]]:
    """Yield equal blocks of a segment's queries, and how many keys of the path each sees at most."""
    own, before = path[-1], sum(map(_tokens, path[:-1]))
    parts = -(-_tokens(own) // BLOCK)
    for first, last in pairwise(_tokens(own) * n // parts for n in range(parts + 1)):
        yield slice(own.start + first, own.start + last), before + last


@lru_cache(maxsize=2 * BLOCK)
def _future(count: int) -> Tensor:
    """Which of ``count`` keys a query may not see, ``(count, count)``."""
    return torch.ones(count, count, dtype=torch.bool).triu_(1)
