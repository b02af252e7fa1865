"""Cross-entropy of a frozen head, without ever holding the (N, V) logits.

The head's weights are frozen, so the only gradient is the one of the hidden states, and it can be computed in
the forward pass, chunk by chunk, while a chunk's logits are still there: softmax minus one-hot, times the
head (the idea of Cut Cross-Entropy, arXiv 2411.09009, and Liger, arXiv 2410.10989). Sums, never means: means
of micro-batches with unequal numbers of trained tokens don't add up to the mean of the whole.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora_kit.model.product import product

CHUNK_ROWS = 128
Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type


class _SumOfNats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        head = (weight, bias)
        if not ctx.needs_input_grad[0]:
            each = target_nats(hidden, *head, targets)
            ctx.mark_non_differentiable(each)
            return each.sum(), each
        gradient = torch.empty_like(hidden)
        each = torch.empty(len(targets), dtype=torch.float64, device=hidden.device)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for rows, logits, wanted in _chunks(hidden, *head, targets):
            nats, softmax = _nats_and_softmax(logits, wanted)
            each[rows] = nats
            total += nats.sum(dtype=torch.float64)
            softmax.scatter_add_(1, wanted, softmax.new_full(wanted.shape, -1.0))
            torch.mm(softmax.to(weight.dtype), weight, out=gradient[rows])
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(each)
        return total, each

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_output: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.to(gradient.dtype), None, None, None


def sum_of_nats(hidden: Tensor, head: nn.Linear, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy of each target, differentiable with respect to ``hidden``; return each as well.

    Args:
        hidden: Float ``(N, H)``, the states that predict the targets, in the head's number type.
        head: The frozen output layer, ``(V, H)``.
        targets: Int64 ``(N,)``.

    Returns:
        Float64 scalar, natural log, exactly 0 when N = 0; and float64 ``(N,)`` without gradient. Logits have
        the head's number type, and float32 at least from there on, as in transformers.
    """
    assert not head.weight.requires_grad, "the head is frozen"
    result: tuple[Tensor, Tensor] = _SumOfNats.apply(hidden, head.weight, head.bias, targets)
    return result


@torch.no_grad()
def target_nats(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Return each target's cross-entropy, float64 ``(N,)``; without gradient; as :func:`sum_of_nats`."""
    nats = torch.empty(len(targets), dtype=torch.float64, device=hidden.device)
    for rows, logits, wanted in _chunks(hidden, weight, bias, targets):
        nats[rows] = (logits.logsumexp(dim=1) - logits.gather(1, wanted)[:, 0]).double()
    return nats


def _chunks(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield rows, their logits (rows, V) in float32 or better, and their targets (rows, 1)."""
    for start in range(0, len(targets), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        logits = product(hidden[rows], weight, bias)
        precise = torch.promote_types(logits.dtype, torch.float32)
        yield rows, logits.to(precise), targets[rows, None]


def _nats_and_softmax(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the targets' nats (rows,), and the softmax, which takes the logits' place.

    The logarithm of the sum comes from the likeliest token, whose probability is at least 1 / V: one pass to
    find it is cheaper than the four of logsumexp, and a target's own probability may be rounded to zero.
    """
    most, likeliest = logits.max(dim=1, keepdim=True)
    own = logits.gather(1, wanted)
    softmax = torch.softmax(logits, dim=1, out=logits)
    return (most - own - softmax.gather(1, likeliest).log_())[:, 0], softmax
