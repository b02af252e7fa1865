"""Who is better than whom: every pair's win rate, and what may be concluded from it among all the others.

A player is better if its share of a pair's judgments is above one half. The 5 % of error are shared
by all pairs (Holm), so that a ranking of equals names a winner in 5 % of cases, however many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lora_kit.harness.comparing.bouts import Bouts
from lora_kit.harness.statistics.bootstrap import Floats, resample_sums
from lora_kit.harness.statistics.matches import Ints
from lora_kit.harness.statistics.significance import holm
from lora_kit.harness.statistics.verdict import (
    Difference,
    Estimate,
    difference_of_ratios,
    estimate,
    more_items_needed,
    paired_standard_error,
    power_factor,
    verdict_of,
)

FAIR = 50.0  # per cent


@dataclass(frozen=True)
class PairOutcome:
    """One pair.

    Args:
        a: Index of one player.
        b: Index of the other.
        win_rate: Of ``a``, in per cent, ties half.
        difference: To 50; verdict, smallest visible difference and items needed are those of a pair that is
            tested together with all others, interval and ``p`` are its own.
        p_holm: Corrected.
    """

    a: int
    b: int
    win_rate: Estimate
    difference: Difference
    p_holm: float


def pair_outcomes(
    bouts: Bouts, pairs: Sequence[tuple[int, int]], *, samples: int, seed: int
) -> dict[tuple[int, int], PairOutcome]:
    """Compare the players of each pair; a pair of which nothing was judged is left out.

    Args:
        bouts: What was judged.
        pairs: Indices of players, each pair once.
        samples: Resamples behind the intervals, and sign flips behind p.
        seed: Of the resampling.
    """
    tables = {pair: rows for pair in pairs if len(rows := _cells(bouts, *pair))}
    found = {pair: _alone(pair, rows, samples, seed) for pair, rows in tables.items()}
    corrected = holm([outcome.difference.p for outcome in found.values()])
    return {
        pair: _among(outcome, tables[pair], p, tests=len(pairs))
        for (pair, outcome), p in zip(found.items(), corrected, strict=True)
    }


def rows_of_pair(bouts: Bouts, a: int, b: int) -> tuple[Ints, Floats]:
    """Which judgments are of a pair, ``(m,)``, and ``a``'s share of each, ``(m,)``."""
    there = (bouts.first == a) & (bouts.second == b)
    back = (bouts.first == b) & (bouts.second == a)
    at = np.flatnonzero(there | back)
    return at, np.where(there[at], bouts.share[at], 1.0 - bouts.share[at])


def _cells(bouts: Bouts, a: int, b: int) -> Floats:
    """For each cluster with judgments of the pair: a's points in per cent, and judgments; ``(C, 2)``."""
    at, share = rows_of_pair(bouts, a, b)
    sums = np.zeros((bouts.cluster_count, 2))
    weight = bouts.weight[at]
    np.add.at(sums, bouts.cluster_numbers[at], np.column_stack([100.0 * share * weight, weight]))
    return sums[sums[:, 1] > 0.0]


def _alone(pair: tuple[int, int], rows: Floats, samples: int, seed: int) -> PairOutcome:
    draws = resample_sums(rows, samples=samples, seed=seed)
    even, even_draws = (np.column_stack([FAIR * table[:, 1], table[:, 1]]) for table in (rows, draws))
    count = len(rows)
    found = difference_of_ratios((rows, draws), (even, even_draws), higher_is_better=True, items=count)
    return PairOutcome(*pair, estimate(rows, draws, items=count), found, found.p)


def _among(outcome: PairOutcome, rows: Floats, p: float, *, tests: int) -> PairOutcome:
    """What is left of a pair's verdict when all pairs are asked about at once."""
    found, count = outcome.difference, len(rows)
    error = paired_standard_error(rows, np.column_stack([FAIR * rows[:, 1], rows[:, 1]]))
    verdict = verdict_of(found.low, found.high, p=p, clusters=count, higher_is_better=True)
    more: int | None = 0
    if verdict == "can't tell":
        more = more_items_needed(found.difference, error, clusters=count, items=count, tests=tests)
    visible = power_factor(clusters=count, tests=tests) * error or None
    joint = replace(found, verdict=verdict, smallest_visible=visible, more_items_needed=more)
    return replace(outcome, difference=joint, p_holm=p)
