"""Each player's win rate against all whom it met, with the standard error over prompts."""

from dataclasses import dataclass

import numpy as np

from lora_kit.harness.comparing.bouts import Bouts
from lora_kit.harness.statistics.bootstrap import Floats, resample_sums
from lora_kit.harness.statistics.verdict import estimate, paired_standard_error


@dataclass(frozen=True, slots=True)
class PlayerRate:
    """A win rate in per cent, ties half.

    Args:
        value: Over all judgments of the player.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Prompts, or clusters of them.
        standard_error: Over clusters.
    """

    value: float
    low: float
    high: float
    n: int
    standard_error: float


def player_rates(bouts: Bouts, *, samples: int, seed: int) -> list[PlayerRate | None]:
    """Win rate of each player; None for one of whom nothing was judged.

    Args:
        bouts: What was judged.
        samples: Resamples behind the intervals.
        seed: Of the resampling.
    """
    return [_rate(_cells(bouts, player), samples, seed) for player in range(len(bouts.players))]


def _cells(bouts: Bouts, player: int) -> Floats:
    """For each cluster that the player was judged in: points in per cent, and judgments; ``(C, 2)``."""
    sums = np.zeros((bouts.cluster_count, 2))
    for place, share in ((bouts.first, bouts.share), (bouts.second, 1.0 - bouts.share)):
        at = np.flatnonzero(place == player)
        weight = bouts.weight[at]
        np.add.at(sums, bouts.cluster_numbers[at], np.column_stack([100.0 * share[at] * weight, weight]))
    return sums[sums[:, 1] > 0.0]


def _rate(rows: Floats, samples: int, seed: int) -> PlayerRate | None:
    if not len(rows):
        return None
    found = estimate(rows, resample_sums(rows, samples=samples, seed=seed), items=len(rows))
    constant = np.column_stack([np.zeros(len(rows)), np.ones(len(rows))])
    error = paired_standard_error(rows, constant)
    return PlayerRate(found.value, found.low, found.high, found.n, error)
