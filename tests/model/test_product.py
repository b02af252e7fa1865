"""x W^T equals torch's own for every count of rows, with and without a bias."""

import pytest
import torch
from torch.nn.functional import linear

from lora_kit.model.product import product


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 18, 19, 20, 131])
@pytest.mark.parametrize("with_bias", [False, True])
def test_it_is_the_product(rows: int, dtype: torch.dtype, *, with_bias: bool) -> None:
    torch.manual_seed(rows)
    x, weight = torch.randn(rows, 24, dtype=dtype), torch.randn(40, 24, dtype=dtype)
    bias = torch.randn(40, dtype=dtype) if with_bias else None
    found = product(x, weight, bias)
    assert found.shape == (rows, 40)
    assert found.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-13
    assert torch.allclose(found, linear(x, weight, bias), rtol=0, atol=tolerance)
