import numpy as np
import pytest

from lora_kit.harness.statistics.bootstrap import resample_sums
from lora_kit.harness.statistics.verdict import (
    Difference,
    difference_of_ratios,
    estimate,
    more_items_needed,
    paired_standard_error,
    power_factor,
    verdict_of,
)


def compare(
    model: np.ndarray, baseline: np.ndarray, *, higher: bool | None = True, seed: int = 0
) -> Difference:
    """Means of two columns of scores on the same items."""
    ones = np.ones_like(model)
    wide = np.column_stack([model, ones, baseline, ones])
    draws = resample_sums(wide, samples=1000, seed=seed)
    cells = [(wide[:, at : at + 2], draws[:, at : at + 2]) for at in (0, 2)]
    return difference_of_ratios(cells[0], cells[1], higher_is_better=higher, items=len(model))


@pytest.mark.parametrize(
    ("low", "high", "higher", "verdict"),
    [
        (0.1, 0.2, True, "better"),
        (0.1, 0.2, False, "worse"),
        (-0.2, -0.1, True, "worse"),
        (-0.2, -0.1, False, "better"),
        (0.1, 0.2, None, "higher"),
        (-0.2, -0.1, None, "lower"),
        (-0.1, 0.1, True, "can't tell"),
        (0.0, 0.2, True, "can't tell"),
        (-0.2, 0.0, False, "can't tell"),
    ],
)
def test_the_verdict_needs_the_interval_the_test_and_enough_clusters(low, high, higher, verdict):
    assert verdict_of(low, high, p=0.05, clusters=6, higher_is_better=higher) == verdict
    assert verdict_of(low, high, p=0.05, clusters=5, higher_is_better=higher) == "can't tell"
    assert verdict_of(low, high, p=0.06, clusters=6, higher_is_better=higher) == "can't tell"


def test_a_model_equals_itself():
    scores = np.random.default_rng(0).normal(size=40)
    outcome = compare(scores, scores)
    assert outcome == Difference(0.0, 0.0, 0.0, 1.0, "can't tell", None, None)


def test_the_standard_error_of_means_is_the_paired_one():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=30), generator.normal(size=30)
    ones = np.ones(30)
    error = paired_standard_error(np.column_stack([a, ones]), np.column_stack([b, ones]))
    assert error == pytest.approx(np.std(a - b, ddof=1) / np.sqrt(30))
    outcome = compare(a, b)
    assert outcome.smallest_visible == pytest.approx(power_factor(clusters=30) * error)


def test_the_standard_error_of_ratios_is_that_of_the_bootstrap():
    generator = np.random.default_rng(1)
    tokens = generator.integers(5, 80, 200).astype(float)
    base = np.column_stack([tokens * generator.normal(3.0, 0.5, 200), tokens])
    model = np.column_stack([base[:, 0] - tokens * generator.normal(0.2, 0.3, 200), tokens])
    draws = resample_sums(np.hstack([model, base]), samples=4000, seed=0)
    differences = draws[:, 0] / draws[:, 1] - draws[:, 2] / draws[:, 3]
    assert paired_standard_error(model, base) == pytest.approx(np.std(differences), rel=0.05)


def test_the_value_is_a_ratio_of_sums_not_a_mean_of_ratios():
    sums = np.array([[10.0, 1.0], [10.0, 9.0]])
    result = estimate(sums, resample_sums(sums, samples=100, seed=0), items=2)
    assert result.value == 2.0
    assert result.low <= 2.0 <= result.high


def test_more_items_follow_the_power_formula():
    # 40 items with error 0.1 see 0.28; half of that needs four times as many.
    half = power_factor() * 0.1 / 2
    assert more_items_needed(half, 0.1, clusters=40, items=40) == 120
    assert more_items_needed(-half, 0.1, clusters=40, items=40) == 120
    assert more_items_needed(half, 0.1, clusters=20, items=40) == 120
    assert more_items_needed(half, 0.1, clusters=40, items=40, tests=6) > 180
    assert more_items_needed(9.0, 0.1, clusters=40, items=40) == 1
    assert more_items_needed(0.0, 0.1, clusters=40, items=40) is None
    assert more_items_needed(9.0, 0.1, clusters=2, items=2) == 4


def test_a_decided_difference_needs_no_more_items():
    generator = np.random.default_rng(2)
    base = generator.normal(size=50)
    outcome = compare(base + generator.normal(1.0, 0.1, 50), base)
    assert (outcome.verdict, outcome.more_items_needed, outcome.p) == ("better", 0, 1 / 1001)
    assert outcome.low < outcome.difference < outcome.high


def test_null_is_called_at_the_nominal_rate_and_the_smallest_visible_difference_is_seen():
    generator = np.random.default_rng(7)
    runs, items = 300, 80
    false = seen = 0
    for seed in range(runs):
        base, noise = generator.normal(size=items), generator.normal(size=items)
        visible = power_factor(clusters=items) * np.sqrt(2) / np.sqrt(items)
        false += compare(noise, base, seed=seed).verdict != "can't tell"
        seen += compare(noise + visible, base, seed=seed).verdict == "better"
    assert false / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert seen / runs >= 0.75
