"""Randomisation test of a mean difference: if nothing differs, the sign of each cluster is a coin toss.

Exact where differences are symmetric about zero, which showing two equal models in both orders makes them
(Fisher 1935). The percentile bootstrap is not: it "finds" a difference between a model and itself in 12 % of
suites of 6 prompts and 8 % of 12, and in four wins among 76 ties.
"""

from collections.abc import Iterator

import numpy as np

from lora_kit.harness.statistics.bootstrap import Floats

EXACT_TO = 12  # clusters; their 4,096 tosses are all made
_BLOCK_CELLS = 4_000_000
_ROUNDING = 1e-9  # relative; a tie may be 1e-16 and equal sums differ in their last bits


def sign_flip_p(pulls: Floats, *, samples: int, seed: int) -> float:
    """Two-sided p that tossing signs alone brings the sum as far from zero as it is.

    Args:
        pulls: Float64 ``(C,)``, how far each cluster speaks for a difference; zeros say nothing.
        samples: Random tosses, beyond 12 clusters that say something.
        seed: Of the tosses.

    Returns:
        Never below ``2 / 2**C`` and ``1 / (samples + 1)``; 1 if nothing differs.

    Example:
        >>> sign_flip_p(np.ones(6), samples=1000, seed=0)
        0.03125
    """
    size = np.abs(pulls)
    speaking = pulls[size > _ROUNDING * size.max(initial=0.0)]
    found = abs(float(speaking.sum())) - _ROUNDING * float(size.sum())
    if len(speaking) <= EXACT_TO:
        return float(np.mean(np.abs(_all_signs(len(speaking)) @ speaking) >= found))
    blocks = _tossed(len(speaking), samples, seed)
    as_far = sum(int(np.sum(np.abs(signs @ speaking) >= found)) for signs in blocks)
    return (1 + as_far) / (1 + samples)


def _all_signs(count: int) -> Floats:
    return np.asarray(2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1) - 1.0, dtype=np.float64)


def _tossed(count: int, samples: int, seed: int) -> Iterator[Floats]:
    """Blocks of +-1, float64 ``(b, count)``."""
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_CELLS // count)
    for start in range(0, samples, block):
        size = (min(block, samples - start), count)
        yield np.asarray(2.0 * generator.integers(2, size=size, dtype=np.int8) - 1.0, dtype=np.float64)
