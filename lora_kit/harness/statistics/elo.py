"""Elo ratings as in QLoRA (arXiv 2305.14314): the mean over many random orders of the matches.

Elo depends on the order of matches, so its spread over orders says nothing about other
prompts; for that, see the prompt-clustered interval of ``bradley_terry``. All orders
are played at once, match by match.
"""

from dataclasses import dataclass

import numpy as np

from lora_kit.harness.statistics.bootstrap import Floats
from lora_kit.harness.statistics.matches import Ints, Matches

_BLOCK_CELLS = 20_000_000  # match numbers held at once: 80 MB


@dataclass(frozen=True, slots=True)
class EloRating:
    """One player over all orders.

    Args:
        mean: Mean rating.
        sd: Standard deviation over orders.
        low: 2.5 % quantile over orders.
        high: 97.5 % quantile.
        error_of_mean: ``1.96 sd / sqrt(orders)``, the "+-" of the paper; not an uncertainty about the player.
    """

    mean: float
    sd: float
    low: float
    high: float
    error_of_mean: float


@dataclass(frozen=True, slots=True)
class EloRules:
    """How a tournament is played.

    Args:
        orders: Random orders.
        k: Points at stake in a match.
        start: Everybody's first rating.
        drawn: Matches drawn with replacement in each order; None plays every match once.
        seed: Of the orders.
    """

    orders: int = 10_000
    k: float = 32.0
    start: float = 1000.0
    drawn: int | None = None
    seed: int = 0


def elo_ratings(matches: Matches, rules: EloRules | None = None) -> dict[str, EloRating]:
    """Play the matches in many random orders.

    Returns:
        Rating by player.
    """
    rules = rules or EloRules()
    generator = np.random.default_rng(rules.seed)
    total = len(matches.points)
    block = max(1, min(rules.orders, _BLOCK_CELLS // max(1, rules.drawn or total)))
    ratings = []
    for start in range(0, rules.orders, block):
        size = min(block, rules.orders - start)
        ratings.append(_play(matches, _orders(generator, total, size, rules.drawn), rules))
    final = np.concatenate(ratings)
    return {name: _summary(final[:, index]) for index, name in enumerate(matches.players)}


def _orders(generator: np.random.Generator, total: int, size: int, drawn: int | None) -> Ints:
    """Match numbers, ``(size, matches)``."""
    if drawn is not None:
        return generator.integers(total, size=(size, drawn))
    return generator.permuted(np.tile(np.arange(total, dtype=np.int64), (size, 1)), axis=1)


def _play(matches: Matches, orders: Ints, rules: EloRules) -> Floats:
    """Ratings ``(orders, players)`` after the last match of each order."""
    ratings = np.full((len(orders), len(matches.players)), rules.start)
    flat = ratings.reshape(-1)
    base = np.arange(len(orders)) * len(matches.players)
    for chosen in np.ascontiguousarray(orders.T):
        first, second = base + matches.first[chosen], base + matches.second[chosen]
        expected = 1.0 / (1.0 + 10.0 ** ((flat[second] - flat[first]) / 400.0))
        gain = rules.k * (matches.points[chosen] - expected)
        flat[first] += gain
        flat[second] -= gain
    return ratings


def _summary(ratings: Floats) -> EloRating:
    low, high = np.quantile(ratings, [0.025, 0.975])
    sd = float(np.std(ratings, ddof=1)) if len(ratings) > 1 else 0.0
    return EloRating(float(ratings.mean()), sd, float(low), float(high), 1.96 * sd / np.sqrt(len(ratings)))
