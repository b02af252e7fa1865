"""A difference between two models, with what may and what may not be concluded from it.

A verdict needs two witnesses: a bootstrap interval that leaves out zero, and a sign-flip test below 5 %.
The second stays at 5 % where few clusters or many ties make the first find differences between
a model and itself. What the suite could have seen, and how many more items would decide,
come from the usual power formula at 5 % error and 80 % power.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from lora_kit.harness.statistics.bootstrap import Floats, percentile_interval
from lora_kit.harness.statistics.sign_flip import sign_flip_p

Verdict = Literal["better", "worse", "higher", "lower", "can't tell"]
ERROR, POWER = 0.05, 0.80
MIN_CLUSTERS = 6  # the least n at which a two-sided sign test can reach 5 %: 2 / 2**6
SEED = 0  # of the sign flips


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
        p: Two-sided, from tossing the signs of clusters.
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
    deviations = _influence(sums) - _influence(base_sums)
    p = sign_flip_p(value + deviations if draws.any() else np.zeros(0), samples=len(draws), seed=SEED)
    verdict = verdict_of(low, high, p=p, clusters=len(sums), higher_is_better=higher_is_better)
    error = paired_standard_error(sums, base_sums)
    found = Difference(value, low, high, p, verdict, power_factor(clusters=len(sums)) * error or None, None)
    return replace(found, more_items_needed=_more(found, error, clusters=len(sums), items=items))


def _more(found: Difference, error: float, *, clusters: int, items: int) -> int | None:
    if found.verdict != "can't tell":
        return 0
    return more_items_needed(found.difference, error, clusters=clusters, items=items)


def power_factor(*, clusters: int | None = None, tests: int = 1) -> float:
    """Standard errors that a difference must measure to be found in 80 % of cases.

    Args:
        clusters: Independent items behind the standard error; None for many.
        tests: Comparisons among which the error of 5 % is shared.

    Example:
        >>> round(power_factor(), 2), round(power_factor(clusters=12), 2), round(power_factor(tests=6), 2)
        (2.8, 3.07, 3.48)
    """
    degrees = math.inf if clusters is None else max(1, clusters - 1)
    return _student(1.0 - ERROR / tests / 2.0, degrees) + _student(POWER, degrees)


def _student(probability: float, degrees: float) -> float:
    """Quantile of Student's t, by its expansion about the normal one (Abramowitz & Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    first, second = (z**3 + z) / 4.0, (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    return z + first / degrees + second / degrees**2


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


def verdict_of(low: float, high: float, *, p: float, clusters: int, higher_is_better: bool | None) -> Verdict:
    """Say what interval and p of a difference allow to say.

    Args:
        low: Lower end of the interval.
        high: Upper end.
        p: Corrected, if there are several comparisons.
        clusters: Independent items behind it.
        higher_is_better: None for a metric without a better side.
    """
    if clusters < MIN_CLUSTERS or p > ERROR or low <= 0.0 <= high:
        return "can't tell"
    if higher_is_better is None:
        return "higher" if low > 0.0 else "lower"
    return "better" if (low > 0.0) == higher_is_better else "worse"


def more_items_needed(
    difference: float, error: float, *, clusters: int, items: int, tests: int = 1
) -> int | None:
    """Items to add until a difference of this size is seen in 80 % of cases; None for no difference.

    Args:
        difference: That was measured.
        error: Its standard error.
        clusters: Independent items so far.
        items: All items so far.
        tests: Comparisons among which the error of 5 % is shared.

    Returns:
        At least 1: it is asked where nothing is decided.
    """
    if difference == 0.0:
        return None
    wanted = max(clusters * (power_factor(tests=tests) * error / difference) ** 2, MIN_CLUSTERS)
    return max(1, math.ceil(items * (wanted / clusters - 1.0)))


def _influence(sums: Floats) -> Floats:
    """How far each cluster pulls the ratio: ``(x - r y) / mean(y)``."""
    numerator, denominator = sums[:, 0], sums[:, 1]
    pulled = numerator - ratio(sums.sum(axis=0)) * denominator
    return np.asarray(pulled / denominator.mean())
