"""Seconds as a function of work: a line through what was timed, quadratic in the rows' lengths.

seconds = a steps + b micro-batches + c (flops of layers and head) + d (flops of attention). Nothing is
negative. Three or four timings can't tell c from d, so d is held near a multiple of c that a CPU shows; where
the timings say otherwise they win. Relative errors are squared, so that a short micro-batch counts as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from typing import Any, TypeAlias

import numpy as np

from lora_kit.planning.flops import Flops
from lora_kit.planning.work import Work

ATTENTION = 2.0  # how much dearer a flop of attention is: softmax, masks and small products beside it
HELD = 0.3  # weight of that, beside one timing's relative error
SHY = 0.03  # weight against costs that do not grow with the tokens: one timing alone is a rate
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Timed:
    """One thing that was timed.

    Args:
        what: In words.
        work: What was computed; a step of its own if the optimizer's part is in it.
        seconds: How long it took.
        peak_bytes: The process's peak after it.
    """

    what: str
    work: Work
    seconds: float
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds of each thing that is counted.

    Args:
        step: Of the optimizer.
        batch: Of a micro-batch, beside its tokens.
        flop: Of layers and head.
        attention: Of attention's own.
        error: Relative, root of the mean square over the timings.
    """

    step: float
    batch: float
    flop: float
    attention: float
    error: float = 0.0

    def seconds(self, work: Work, flops: Flops) -> float:
        """Predict."""
        rest = flops.of(work, cells=False)
        return (
            work.steps * self.step
            + work.batches * self.batch
            + rest * self.flop
            + work.cells * flops.cell * self.attention
        )


def fit(timed: Sequence[Timed], flops: Flops) -> CostModel:
    """Fit the model to at least one timing."""
    features = np.array([_features(one.work, flops) for one in timed])
    seconds = np.array([max(one.seconds, 1e-9) for one in timed])
    scale = np.maximum(features.max(axis=0), 1e-30)  # the columns differ by ten orders of magnitude
    rows = features / seconds[:, None] / scale
    held = HELD * np.array([0.0, 0.0, -ATTENTION * scale[3] / scale[2], 1.0])
    shy = SHY * np.eye(2, 4)
    left = np.vstack([rows, held / seconds.max(), shy / seconds.max()])
    best = _non_negative(left, np.append(np.ones(len(seconds)), np.zeros(3)))
    error = float(np.sqrt(np.mean((rows @ best - 1) ** 2)))
    step, batch, flop, attention = (best / scale).tolist()
    return CostModel(step, batch, flop, attention, error)


def _features(work: Work, flops: Flops) -> list[float]:
    return [work.steps, work.batches, flops.of(work, cells=False), work.cells * flops.cell]


def _non_negative(left: Floats, right: Floats) -> Floats:
    """Least squares without negative coefficients: with four columns, every subset can be tried."""
    columns = left.shape[1]
    best, least = np.zeros(columns), float(right @ right)
    for count in range(1, columns + 1):
        for chosen in combinations(range(columns), count):
            found = np.linalg.lstsq(left[:, chosen], right, rcond=None)[0]
            wrong = float(np.sum((left[:, chosen] @ found - right) ** 2))
            if (found >= 0).all() and wrong < least - 1e-12:
                best, least = np.zeros(columns), wrong
                best[list(chosen)] = found
    return best


def of_rate(flops_per_second: float, *, batch: float = 0.0) -> CostModel:
    """Return the model of a device that is known by its rate only."""
    return CostModel(0.0, batch, 1 / flops_per_second, ATTENTION / flops_per_second)


def combined(*relative: float) -> float:
    """Add relative errors that know nothing of each other."""
    return sqrt(sum(one * one for one in relative))
