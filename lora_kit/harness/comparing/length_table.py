"""Win rates at equal lengths, of pairs and of players."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lora_kit.harness.comparing.bouts import Bouts
from lora_kit.harness.comparing.pair_table import rows_of_pair
from lora_kit.harness.statistics.bootstrap import Floats, percentile_interval
from lora_kit.harness.statistics.shared_length import PairRows, shared_length

SAMPLES = 500  # refits behind an interval


@dataclass(frozen=True, slots=True)
class Controlled:
    """A length-controlled win rate in per cent, with its 95 % interval and standard error over prompts."""

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class LengthTable:
    """What is left of wins when lengths are made equal.

    Args:
        taste: Log-odds that a judge adds to an answer which is longer by far; above 0 it likes length.
        taste_low: Lower end of its 95 % interval.
        taste_high: Upper end.
        pairs: Win rate of the first of each pair.
        players: Mean over a player's pairs.
        one_sided: Pairs in which the same player is longer nearly always; by itself, such a pair can't tell
            length from quality.
    """

    taste: float
    taste_low: float
    taste_high: float
    pairs: Mapping[tuple[int, int], Controlled]
    players: Mapping[int, Controlled]
    one_sided: tuple[tuple[int, int], ...]


ONE_SIDED = 0.9  # share of prompts


def length_table(bouts: Bouts, pairs: Sequence[tuple[int, int]], *, seed: int) -> LengthTable:
    """Fit all pairs of which something was judged.

    Args:
        bouts: What was judged, at least once.
        pairs: Those with judgments.
        seed: Of the resampling.
    """
    rows = _rows(bouts, pairs)
    fit = shared_length(rows, samples=SAMPLES, seed=seed)
    of_pair = {pair: (fit.win_rate[k], fit.win_rate_draws[:, k]) for k, pair in enumerate(pairs)}
    of_player = {}
    for player in sorted({player for pair in pairs for player in pair}):
        sides = [_side(of_pair[pair], first=pair[0] == player) for pair in pairs if player in pair]
        of_player[player] = (
            float(np.mean([value for value, _ in sides])),
            np.mean([d for _, d in sides], axis=0),
        )
    low, high = percentile_interval(fit.taste_draws)
    return LengthTable(
        fit.taste,
        low,
        high,
        {pair: _controlled(*found) for pair, found in of_pair.items()},
        {player: _controlled(*found) for player, found in of_player.items()},
        tuple(pair for k, pair in enumerate(pairs) if _is_one_sided(rows.length_gap[rows.pair == k])),
    )


def _rows(bouts: Bouts, pairs: Sequence[tuple[int, int]]) -> PairRows:
    """Both orders of a prompt are one row: their lengths are the same."""
    found: list[tuple[float, ...]] = []
    for number, (a, b) in enumerate(pairs):
        at, share = rows_of_pair(bouts, a, b)
        names = {bouts.items[index]: index for index in at}
        place = {name: k for k, name in enumerate(names)}
        row = np.array([place[bouts.items[index]] for index in at])
        weight = np.bincount(row, bouts.weight[at])
        shares = np.bincount(row, bouts.weight[at] * share) / weight
        for k, index in enumerate(names.values()):
            first, second = bouts.lengths[index]
            gap = first - second if bouts.first[index] == a else second - first
            found.append((number, gap, shares[k], weight[k], bouts.cluster_numbers[index]))
    table = np.array(found, dtype=np.float64)
    pair, clusters = table[:, 0].astype(np.int64), table[:, 4].astype(np.int64)
    return PairRows(pair, table[:, 1], table[:, 2], table[:, 3], clusters)


def _side(found: tuple[float, Floats], *, first: bool) -> tuple[float, Floats]:
    return found if first else (100.0 - found[0], 100.0 - found[1])


def _controlled(value: float, draws: Floats) -> Controlled:
    low, high = percentile_interval(draws)
    return Controlled(float(value), low, high, float(np.std(draws, ddof=1)))


def _is_one_sided(gaps: Floats) -> bool:
    return bool(max(np.mean(gaps > 0), np.mean(gaps < 0)) >= ONE_SIDED)
