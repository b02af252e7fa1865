"""Products of few columns are products, whatever is computed along with them."""

import pytest
import torch

from lora_kit.model.few_rows import columns_at, filled, times


def test_columns_are_few_more() -> None:
    assert [columns_at(count) for count in range(1, 18)] == [2, 2, 4, 4, 8, 8, 8, 8, 9, 10, 11, *[16] * 5, 24]
    assert [columns_at(count) for count in (32, 33, 49, 127, 129, 1000)] == [32, 48, 64, 128, 136, 1000]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 13, 16, 31])
@pytest.mark.parametrize("rows_first", [True, False], ids=["rows", "columns"])
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no-bias"])
def test_a_product_is_the_product(count: int, rows_first: bool, biased: bool) -> None:
    draw = torch.Generator().manual_seed(count)
    weight = torch.randn(11, 5, dtype=torch.float64, generator=draw)
    rows = torch.randn(count, 5, dtype=torch.float64, generator=draw)
    bias = torch.randn(11, dtype=torch.float64, generator=draw) if biased else None
    x = rows.t() if rows_first else rows.t().contiguous()
    expected = torch.nn.functional.linear(rows, weight, bias).t()
    torch.testing.assert_close(times(weight, bias, x), expected, rtol=1e-14, atol=1e-14)
    wide = filled(x)
    assert wide.shape == (5, columns_at(count))
    assert torch.equal(wide[:, :count], rows.t())
    assert not wide[:, count:].any()
