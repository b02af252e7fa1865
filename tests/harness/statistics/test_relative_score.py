import math

import pytest

from lora_kit.harness.statistics.relative_score import PairScore, relative_score


def test_it_is_a_ratio_of_sums_in_each_order_and_pooled():
    scores = [
        PairScore(9, 10, reference_first=True),
        PairScore(1, 2, reference_first=True),
        PairScore(8, 8, reference_first=False),
        PairScore(9, 6, reference_first=False),
    ]
    found = relative_score(scores)
    assert found.ref_first.pct == pytest.approx(100 * 10 / 12)
    assert found.sys_first.pct == pytest.approx(100 * 17 / 14)
    assert found.pooled == pytest.approx(100 * 27 / 26)
    assert found.mean_of_orders == pytest.approx((100 * 10 / 12 + 100 * 17 / 14) / 2)
    assert (found.sys_first.win, found.sys_first.tie, found.sys_first.loss) == (1, 1, 0)


def test_what_was_not_parsed_is_left_out():
    found = relative_score(
        [PairScore(None, None, reference_first=True), PairScore(5, 10, reference_first=True)]
    )
    assert (found.ref_first.n, found.ref_first.pct) == (1, 50.0)
    assert math.isnan(found.sys_first.pct)
