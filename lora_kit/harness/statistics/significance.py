"""Exact tests on paired yes-or-no outcomes, and the correction for asking more than once."""

import math
from collections.abc import Sequence


def sign_test(positive: int, negative: int) -> float:
    """Two-sided exact binomial p that both signs are equally likely; ties are left out before.

    Example:
        >>> sign_test(6, 0)
        0.03125
    """
    total, smaller = positive + negative, min(positive, negative)
    tail = sum(math.comb(total, k) for k in range(smaller + 1)) / 2**total
    return min(1.0, 2.0 * tail)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact McNemar p from the items that only one of two models gets right."""
    return sign_test(only_first, only_second)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p values, in the given order; a step-down Bonferroni, never less powerful.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
