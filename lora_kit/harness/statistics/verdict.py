"""A difference between two models, with what may and what may not be concluded from it.

The verdict follows from the interval alone, and never from fewer clusters than could
convince a sign test. What the suite could have seen, and how many more items would
decide, come from the usual power formula at 5 % error and 80 % power.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lora_kit.harness.statistics.bootstrap import Floats, percentile_interval, two_sided_p

Verdict = Literal["better", "worse", "higher", "lower", "can't tell"]
POWER_FACTOR = 1.96 + 0.84
MIN_CLUSTERS = 6  # the least n at which a two-sided sign test can reach 5 %: 2 / 2**6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric's value with its 95 % interval, from n items."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Model minus baseline, on the same items.

    Args:
        difference: In the metric's unit.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided, from the bootstrap.
        verdict: ``higher`` or ``lower`` for a metric without a better side.
        smallest_visible: Difference that these items would show in 80 % of cases; None if nothing varies.
        more_items_needed: Items to add that would decide a difference of this size; 0 if it is decided, None
            if no number would.
    """

    difference: float
    low: float
    high: float
    p: float
    verdict: Verdict
    smallest_visible: float | None
    more_items_needed: int | None


def ratio(sums: Floats) -> Floats:
    """Numerator over denominator, from ``(..., 2)``."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def estimate(sums: Floats, draws: Floats, *, items: int) -> Estimate:
    """Value and interval of one model's metric.

    Args:
        sums: Float64 ``(C, 2)``, numerator and denominator of each cluster.
        draws: Float64 ``(S, 2)``, resampled sums.
        items: Items behind it.
    """
    low, high = percentile_interval(ratio(draws))
    return Estimate(float(ratio(sums.sum(axis=0))), low, high, items)


def difference_of_ratios(
    model: tuple[Floats, Floats],
    baseline: tuple[Floats, Floats],
    *,
    higher_is_better: bool | None,
    items: int,
) -> Difference:
    """Compare two models on one metric.

    Args:
        model: ``(C, 2)`` sums and ``(S, 2)`` resampled sums; the draws are the baseline's.
        baseline: The same for the baseline.
        higher_is_better: None for a metric without a better side.
        items: Items behind it.
    """
    sums, base_sums = model[0], baseline[0]
    value = float(ratio(sums.sum(axis=0)) - ratio(base_sums.sum(axis=0)))
    draws = ratio(model[1]) - ratio(baseline[1])
    if np.array_equal(sums, base_sums):
        draws = np.zeros_like(draws)  # equal columns of one matrix product may differ in their last bit
    low, high = percentile_interval(draws)
    error = paired_standard_error(sums, base_sums)
    verdict = verdict_of(low, high, clusters=len(sums), higher_is_better=higher_is_better)
    more = 0 if verdict != "can't tell" else more_items_needed(value, error, clusters=len(sums), items=items)
    return Difference(value, low, high, two_sided_p(draws), verdict, POWER_FACTOR * error or None, more)


def paired_standard_error(sums: Floats, base_sums: Floats) -> float:
    """Standard error of the difference of two ratios of sums, linearised; ``sd(d) / sqrt(n)`` for two means.

    Args:
        sums: Float64 ``(C, 2)``.
        base_sums: Float64 ``(C, 2)``, the same clusters.

    Returns:
        0 for fewer than two clusters.
    """
    if len(sums) < 2:
        return 0.0
    deviations = _influence(sums) - _influence(base_sums)
    return float(np.std(deviations, ddof=1) / math.sqrt(len(sums)))


def verdict_of(low: float, high: float, *, clusters: int, higher_is_better: bool | None) -> Verdict:
    """Say what an interval of a difference allows to say."""
    if clusters < MIN_CLUSTERS or low <= 0.0 <= high:
        return "can't tell"
    if higher_is_better is None:
        return "higher" if low > 0.0 else "lower"
    return "better" if (low > 0.0) == higher_is_better else "worse"


def more_items_needed(difference: float, error: float, *, clusters: int, items: int) -> int | None:
    """Items to add until a difference of this size is seen in 80 % of cases; None for no difference."""
    if difference == 0.0:
        return None
    wanted = clusters * (POWER_FACTOR * error / difference) ** 2
    return max(0, math.ceil(items * (max(wanted, MIN_CLUSTERS) / clusters - 1.0)))


def _influence(sums: Floats) -> Floats:
    """How far each cluster pulls the ratio: ``(x - r y) / mean(y)``."""
    numerator, denominator = sums[:, 0], sums[:, 1]
    pulled = numerator - ratio(sums.sum(axis=0)) * denominator
    return np.asarray(pulled / denominator.mean())
