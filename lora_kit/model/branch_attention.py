"""Causal attention of segments that continue others: a trie of rows laid out in one long row.

A segment's queries see the keys of all its ancestors, and causally its own. Query heads that share a key head
are rows of one product, as in ``attention_kernel``; a block of queries sees only the keys up to its end. What
is kept for the backward pass is query, key and value as they are, and the probabilities of short paths; those
of long ones are made again. The keys of a path are gathered when they are needed: copies for every branch
would cost the memory that sharing saves.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from lora_kit.model.attention_kernel import LONGEST, SOFTMAX_BACK, blocks, fold, probabilities

KEPT = LONGEST  # tokens of a path whose probabilities are kept
Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type


class Branch(NamedTuple):
    """A segment that continues another.

    Args:
        own: Where its tokens are.
        path: Where the tokens are that it sees: those of its ancestors from the root, then its own.
    """

    own: slice
    path: tuple[slice, ...]

    @property
    def tokens(self) -> int:
        """Tokens of its own."""
        return int(self.own.stop - self.own.start)

    @property
    def before(self) -> int:
        """Tokens of its ancestors."""
        return sum(part.stop - part.start for part in self.path[:-1])


def branches(lengths: Sequence[int], parents: Sequence[int]) -> list[Branch | None]:
    """Return the branch of each segment, None for a root.

    Args:
        lengths: Tokens of each segment, in the order of the layout.
        parents: The segment that each continues, an earlier one; -1 for none.
    """
    found: list[Branch] = []
    start = 0
    for length, parent in zip(lengths, parents, strict=True):
        own = slice(start, start := start + length)
        found.append(Branch(own, (*(found[parent].path if parent >= 0 else ()), own)))
    return [branch if parent >= 0 else None for branch, parent in zip(found, parents, strict=True)]


def branch_attention(
    query: Tensor, key: Tensor, value: Tensor, tree: Sequence[Branch], *, scaling: float, dropout: float
) -> Tensor:
    """Attend from every branch.

    Args:
        query: Float ``(1, heads, T, D)``.
        key: Float ``(1, key-value heads, T, D)``.
        value: Like ``key``.
        tree: At least one branch.
        scaling: Factor of the scores.
        dropout: Probability of dropping an attention weight.

    Returns:
        Float ``(1, heads, tokens of the branches, D)``, branch after branch.
    """
    if query.device.type == "cpu" and not dropout and query.dtype.itemsize >= 4:
        output: Tensor = _Branches.apply(query, key, value, tree, scaling)
        return output
    pieces = []
    for branch in tree:
        rows, seen = branch.tokens, branch.before + branch.tokens
        mask = torch.ones(rows, seen, dtype=torch.bool, device=query.device).tril_(branch.before)
        pieces.append(
            scaled_dot_product_attention(
                query[:, :, branch.own],
                torch.cat([key[:, :, part] for part in branch.path], 2),
                torch.cat([value[:, :, part] for part in branch.path], 2),
                attn_mask=mask,
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(pieces, dim=2)


class _Branches(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context, query: Tensor, key: Tensor, value: Tensor, tree: Sequence[Branch], scaling: float
    ) -> Tensor:
        heads = fold(query, key)
        output = query.new_empty(*heads.shape[:2], sum(branch.tokens for branch in tree), heads.shape[3])
        kept, done = [], 0
        for branch in tree:
            keys, values = _gather(key, branch), _gather(value, branch)
            for rows, seen in _blocks(branch):
                weights = probabilities(_rows(heads, rows), keys[:, :seen], rows.stop - rows.start, scaling)
                count = rows.stop - rows.start
                result = torch.bmm(weights, values[:, :seen])
                output[:, :, done : done + count] = result.unflatten(1, (-1, count))
                done += count
                kept += [weights] if _keeps(branch) else []
        ctx.tree, ctx.scaling = tree, scaling
        ctx.save_for_backward(query, key, value, *kept)
        return output.flatten(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        heads, above, left, done = fold(query, key), fold(grad_output, key), iter(kept), 0
        grads = torch.zeros_like(heads), torch.zeros_like(key[0]), torch.zeros_like(value[0])
        for branch in ctx.tree:
            keys, values = _gather(key, branch), _gather(value, branch)
            to_keys, to_values = torch.zeros_like(keys), torch.zeros_like(values)
            for rows, seen in _blocks(branch):
                count = rows.stop - rows.start
                own, outer = _rows(heads, rows), _rows(above, slice(done, done := done + count))
                weights = (
                    next(left) if _keeps(branch) else probabilities(own, keys[:, :seen], count, ctx.scaling)
                )
                to_values[:, :seen].baddbmm_(weights.transpose(1, 2), outer)
                inner = torch.bmm(outer, values[:, :seen].transpose(1, 2))
                scores = SOFTMAX_BACK(inner, weights, -1, weights.dtype)
                back = torch.bmm(scores, keys[:, :seen]).mul_(ctx.scaling)
                grads[0][:, :, rows] = back.unflatten(1, (-1, count))
                to_keys[:, :seen].baddbmm_(scores.transpose(1, 2), own, alpha=ctx.scaling)
            _scatter(grads[1], to_keys, branch)
            _scatter(grads[2], to_values, branch)
        return grads[0].flatten(0, 1)[None], grads[1][None], grads[2][None], None, None


def _keeps(branch: Branch) -> bool:
    return branch.before + branch.tokens <= KEPT


def _rows(heads: Tensor, rows: slice) -> Tensor:
    """Return some queries of all heads of a group as rows, ``(key-value heads, G x rows, D)``."""
    return heads[:, :, rows].flatten(1, 2)


def _blocks(branch: Branch) -> Iterator[tuple[slice, int]]:
    """Yield where a block of queries is, and how many keys of the path it sees at most."""
    for first, last in blocks(branch.tokens):
        yield slice(branch.own.start + first, branch.own.start + last), branch.before + last


def _gather(states: Tensor, branch: Branch) -> Tensor:
    return torch.cat([states[0, :, part] for part in branch.path], 1)


def _scatter(total: Tensor, grads: Tensor, branch: Branch) -> None:
    for part, grad in zip(branch.path, grads.split([p.stop - p.start for p in branch.path], 1), strict=True):
        total[:, part] += grad
