"""Length-controlled win rates of a whole tournament: who would win if all answers were equally long.

``logit P(first beats second) = a tanh(z) + c``, with z the standardised difference of lengths
(arXiv 2404.04475) and one c for each pair. AlpacaEval fits a for each model apart, and needs anchor rows from
another study to tell a taste for length from quality. Here all pairs of one judge share a, so each pair
is the others' anchor and nothing but the journal is needed. Swapping a pair turns its win rate p into 1 - p.
"""

from dataclasses import dataclass

import numpy as np

from lora_kit.harness.statistics.bootstrap import Floats, resample_sums
from lora_kit.harness.statistics.matches import Ints

VIRTUAL_TIE = 1.0  # weight of one tie for each coefficient, which keeps it finite
_BLOCK_CELLS = 4_000_000
_STEPS, _LONGEST_STEP, _CLOSE = 60, 2.0, 1e-9


@dataclass(frozen=True)
class PairRows:
    """Judgments as a fit sees them, one row for each prompt of each pair.

    Args:
        pair: Int64 ``(n,)``, number of the pair.
        length_gap: Float64 ``(n,)``, characters of the first of the pair minus the second's.
        share: Float64 ``(n,)``, preference for the first, 0..1.
        weight: Float64 ``(n,)``, judgments behind the row.
        clusters: Int64 ``(n,)``, number of the cluster.
    """

    pair: Ints
    length_gap: Floats
    share: Floats
    weight: Floats
    clusters: Ints


@dataclass(frozen=True)
class SharedLength:
    """The fit, and the fits of resampled clusters.

    Args:
        taste: a; above 0 the judge likes length.
        taste_draws: Float64 ``(S,)``.
        win_rate: Float64 ``(K,)``, per cent, of each pair's first at equal lengths.
        win_rate_draws: Float64 ``(S, K)``.
    """

    taste: float
    taste_draws: Floats
    win_rate: Floats
    win_rate_draws: Floats


def shared_length(rows: PairRows, *, samples: int, seed: int) -> SharedLength:
    """Fit all pairs at once, then again for each resampling of clusters.

    Args:
        rows: At least one.
        samples: Resamples S.
        seed: Of the resampling.
    """
    times = resample_sums(np.eye(int(rows.clusters.max()) + 1), samples=samples, seed=seed)
    block = max(1, _BLOCK_CELLS // len(rows.share))
    drawn = (times[start : start + block, rows.clusters] for start in range(0, samples, block))
    fits = [_fit(rows, rows.weight[None]), *(_fit(rows, part * rows.weight) for part in drawn)]
    tastes, strengths = (np.concatenate(parts) for parts in zip(*fits, strict=True))
    rates = 100.0 * _sigmoid(strengths)
    return SharedLength(float(tastes[0]), tastes[1:], rates[0], rates[1:])


def _fit(rows: PairRows, weights: Floats) -> tuple[Floats, Floats]:
    """Newton's method on many weightings at once: ``(S, n)`` -> a ``(S,)`` and c ``(S, K)``."""
    gap = np.tanh(_standardised(rows.length_gap))
    member = np.eye(int(rows.pair.max()) + 1)[rows.pair]  # (n, K)
    taste, strengths = np.zeros(len(weights)), np.zeros((len(weights), member.shape[1]))
    for _ in range(_STEPS):
        chance = _sigmoid(taste[:, None] * gap + strengths[:, rows.pair])
        miss, spread = weights * (chance - rows.share), weights * chance * (1.0 - chance)
        prior, prior_pairs = _sigmoid(taste), _sigmoid(strengths)
        pull = miss @ gap + VIRTUAL_TIE * (prior - 0.5)
        pulls = miss @ member + VIRTUAL_TIE * (prior_pairs - 0.5)
        bend = spread @ gap**2 + VIRTUAL_TIE * prior * (1.0 - prior)
        bends = spread @ member + VIRTUAL_TIE * prior_pairs * (1.0 - prior_pairs)
        mixed = (spread * gap) @ member
        # Only a is in every row, so the Hessian is an arrow: eliminate the pairs, then solve for a.
        step = (pull - (mixed * pulls / bends).sum(axis=1)) / (bend - (mixed**2 / bends).sum(axis=1))
        steps = (pulls - mixed * step[:, None]) / bends
        taste = taste - np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        strengths = strengths - np.clip(steps, -_LONGEST_STEP, _LONGEST_STEP)
        if max(np.abs(step).max(), np.abs(steps).max()) < _CLOSE:
            break
    return taste, strengths


def _standardised(gaps: Floats) -> Floats:
    """In units of their root mean square: a constant surplus of one side has to stay one."""
    size = float(np.sqrt(np.mean(gaps**2)))
    return gaps / size if size else gaps


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))
