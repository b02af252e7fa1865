"""Paired bootstrap over clusters of items, for any metric that is a ratio of two sums.

A mean is a sum over a count, nats per token a sum over a sum, so one resampling
serves all: draw clusters with replacement, add up, divide. All columns (both models,
all metrics) share the draws, which is what makes the comparison paired (Efron &
Tibshirani 1993; clusters as in Miller 2024, arXiv 2411.00640).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
_BLOCK_CELLS = 4_000_000  # counts held at once: 32 MB


def cluster_sums(columns: Floats, clusters: Sequence[str]) -> Floats:
    """Add up the rows of each cluster.

    Args:
        columns: Float64 ``(n, K)``, one row an item.
        clusters: n names.

    Returns:
        Float64 ``(C, K)``, clusters in order of first appearance.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(numbers), columns.shape[1]))
    np.add.at(sums, [numbers[name] for name in clusters], columns)
    return sums


def resample_sums(sums: Floats, *, samples: int, seed: int) -> Floats:
    """Draw C of the C rows with replacement, ``samples`` times, and add up each draw.

    Args:
        sums: Float64 ``(C, K)``, one row a cluster.
        samples: Draws S.
        seed: The same seed gives the same draws.

    Returns:
        Float64 ``(S, K)``.
    """
    generator = np.random.default_rng(seed)
    count = len(sums)
    block = max(1, min(samples, _BLOCK_CELLS // count))
    parts = []
    for start in range(0, samples, block):
        size = min(block, samples - start)
        drawn = generator.integers(count, size=(size, count)) + np.arange(size)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        parts.append(times.astype(np.float64) @ sums)
    return np.concatenate(parts)


def percentile_interval(draws: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The middle ``confidence`` of the draws."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return float(low), float(high)


def two_sided_p(draws: Floats) -> float:
    """``2 min(P(d <= 0), P(d >= 0))`` over the bootstrap draws of a difference, at most 1."""
    return min(1.0, 2.0 * float(min(np.mean(draws <= 0.0), np.mean(draws >= 0.0))))
