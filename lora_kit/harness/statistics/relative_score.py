"""Vicuna's "% of ChatGPT": the sum of a system's scores over the sum of the reference's.

A ratio of sums, not a mean of ratios; GPT-4 prefers whoever is shown first, so both
orders are reported, their mean, and the pooled ratio (QLoRA's "Mean" column).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PairScore:
    """Two scores of one judgment.

    Args:
        system: Score of the system, None if it could not be parsed.
        reference: Score of the reference.
        reference_first: Whether the reference was shown first.
    """

    system: float | None
    reference: float | None
    reference_first: bool


@dataclass(frozen=True, slots=True)
class OrderScore:
    """One order of showing.

    Args:
        n: Judgments that were parsed.
        sum_sys: Sum of the system's scores.
        sum_ref: Sum of the reference's.
        win: Judgments in which the system has the higher score.
        tie: Equal scores.
        loss: The rest.
    """

    n: int
    sum_sys: float
    sum_ref: float
    win: int
    tie: int
    loss: int

    @property
    def pct(self) -> float:
        """The system's sum in per cent of the reference's; NaN without judgments."""
        return 100.0 * self.sum_sys / self.sum_ref if self.sum_ref else math.nan


@dataclass(frozen=True, slots=True)
class RelativeScore:
    """Both orders."""

    ref_first: OrderScore
    sys_first: OrderScore

    @property
    def mean_of_orders(self) -> float:
        """Mean of the two percentages."""
        return (self.ref_first.pct + self.sys_first.pct) / 2

    @property
    def pooled(self) -> float:
        """All of the system's points in per cent of all of the reference's."""
        reference = self.ref_first.sum_ref + self.sys_first.sum_ref
        return (
            100.0 * (self.ref_first.sum_sys + self.sys_first.sum_sys) / reference if reference else math.nan
        )


def relative_score(scores: Sequence[PairScore]) -> RelativeScore:
    """Add up each order; what was not parsed is left out, never a score of 0 or -1."""
    return RelativeScore(
        _order([score for score in scores if score.reference_first]),
        _order([score for score in scores if not score.reference_first]),
    )


def _order(scores: Sequence[PairScore]) -> OrderScore:
    pairs = [(s.system, s.reference) for s in scores if s.system is not None and s.reference is not None]
    win, tie = sum(a > b for a, b in pairs), sum(a == b for a, b in pairs)
    sums = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    return OrderScore(len(pairs), *sums, win, tie, len(pairs) - win - tie)
