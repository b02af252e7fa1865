"""The chunked loss is torch's cross-entropy, without its memory."""

from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from lora_kit.model.loss import CHUNK_ROWS, sum_of_nats, target_nats


def case(
    rows: int, dtype: torch.dtype, *, bias: bool, vocabulary: int = 61
) -> tuple[Tensor, nn.Linear, Tensor]:
    torch.manual_seed(rows)
    head = nn.Linear(16, vocabulary, bias=bias, dtype=dtype).requires_grad_(requires_grad=False)
    hidden = torch.randn(rows, 16, dtype=dtype, requires_grad=True)
    return hidden, head, torch.randint(vocabulary, (rows,))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, CHUNK_ROWS - 1, CHUNK_ROWS, 2 * CHUNK_ROWS + 5])
def test_nats_and_gradient_are_those_of_torch(rows: int, bias: bool) -> None:
    hidden, head, targets = case(rows, torch.float64, bias=bias)
    expected = cross_entropy(head(hidden), targets, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(3 * expected, hidden)
    found, of_each = sum_of_nats(hidden, head, targets)
    (gradient,) = torch.autograd.grad(3 * found, hidden)
    assert found.item() == pytest.approx(expected.item(), rel=1e-13)
    assert torch.allclose(gradient, expected_gradient, rtol=0, atol=1e-13)
    each = cross_entropy(head(hidden), targets, reduction="none")
    assert torch.allclose(target_nats(hidden, head.weight, head.bias, targets), each, rtol=0, atol=1e-13)
    assert torch.allclose(of_each, each, rtol=0, atol=1e-13)
    assert not of_each.requires_grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_lower_precision_is_rounded_once(dtype: torch.dtype, tolerance: float) -> None:
    hidden, head, targets = case(300, dtype, bias=False)
    expected = cross_entropy(head(hidden).float(), targets, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(expected, hidden)
    found, _ = sum_of_nats(hidden, head, targets)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)  # float32 from the logits on
    (gradient,) = torch.autograd.grad(found, hidden)
    assert gradient.dtype == dtype
    assert torch.allclose(gradient, expected_gradient, rtol=tolerance, atol=tolerance)


def test_no_targets_are_zero_nats() -> None:
    hidden, head, targets = case(0, torch.float32, bias=True)
    found, each = sum_of_nats(hidden, head, targets)
    found.backward()
    assert found.item() == 0.0
    assert each.shape == (0,)
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, 16)


def test_a_head_that_learns_is_not_for_this_loss() -> None:
    hidden, head, targets = case(3, torch.float32, bias=False)
    head.weight.requires_grad_()
    with pytest.raises(AssertionError):
        sum_of_nats(hidden, head, targets)


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, prod(tensor.shape))
        return result


def test_logits_of_all_rows_are_never_held() -> None:
    hidden, head, targets = case(8 * CHUNK_ROWS, torch.float32, bias=False, vocabulary=500)
    with LargestTensor() as largest:
        sum_of_nats(hidden, head, targets)[0].backward()
    assert largest.numbers == CHUNK_ROWS * 500
