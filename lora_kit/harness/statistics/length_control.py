"""Length-controlled win rate: the win rate if both answers were equally long (arXiv 2404.04475).

A logistic regression without intercept, ``logit P = a tanh(z) + b difficulty + c`` with z
the standardised difference of lengths; the answer is the mean of ``sigmoid(b d + c)``.
Anchor rows (the same model made terse and made wordy) pin ``a`` and ``b`` with little weight.
"""

from dataclasses import dataclass

import numpy as np

from lora_kit.harness.statistics.bootstrap import Floats

ANCHOR_WEIGHT = 0.1  # lambda / 2 of the paper's regularisation, lambda = 0.2
_SWEEPS, _NEWTON_STEPS, _CLOSE = 200, 100, 1e-12


@dataclass(frozen=True)
class LengthRows:
    """What a fit sees.

    Args:
        length_gap: Float64 ``(n,)``, baseline's length minus the model's over their standard deviation.
        difficulty: Float64 ``(n,)``, zero where it is unknown.
        share: Float64 ``(n,)``, preference for the model, 0..1.
    """

    length_gap: Floats
    difficulty: Floats
    share: Floats


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """The fit.

    Args:
        win_rate: Length-controlled win rate in per cent.
        standard_error: Over the items' probabilities, in per cent.
        coefficients: Of length, difficulty and the model.
    """

    win_rate: float
    standard_error: float
    coefficients: tuple[float, float, float]


def standardised_gap(baseline_lengths: Floats, model_lengths: Floats) -> Floats:
    """Baseline's length minus the model's, in standard deviations of all rows, judged or not."""
    gap = baseline_lengths - model_lengths
    spread = float(np.std(gap, ddof=1))
    return gap / spread if spread else gap


def length_controlled(
    rows: LengthRows, *, anchor: LengthRows | None = None, strength: float | None = None
) -> LengthControlled:
    """Fit and read off the win rate.

    Args:
        rows: The judged items.
        anchor: Rows that only pin length and difficulty.
        strength: liblinear's C of an L1 penalty ``|w| / C``; None for no penalty.
    """
    features = np.column_stack([np.tanh(rows.length_gap), rows.difficulty, np.ones_like(rows.share)])
    labels, weights = rows.share, np.ones_like(rows.share)
    if anchor is not None:
        pinned = np.column_stack([np.tanh(anchor.length_gap), anchor.difficulty, np.zeros_like(anchor.share)])
        features = np.vstack([features, pinned])
        labels = np.concatenate([labels, anchor.share])
        weights = np.concatenate([weights, np.full(len(anchor.share), ANCHOR_WEIGHT)])
    coefficients = fit_logistic(
        features, labels, weights, penalty=0.0 if strength is None else 1.0 / strength
    )
    return win_rate_at((coefficients[0], coefficients[1], coefficients[2]), rows.difficulty)


def win_rate_at(coefficients: tuple[float, float, float], difficulty: Floats) -> LengthControlled:
    """The win rate of given coefficients at equal lengths."""
    chances = 1.0 / (1.0 + np.exp(-(coefficients[1] * difficulty + coefficients[2])))
    error = float(np.std(chances, ddof=1) / np.sqrt(len(chances))) if len(chances) > 1 else 0.0
    plain = (float(coefficients[0]), float(coefficients[1]), float(coefficients[2]))
    return LengthControlled(100.0 * float(chances.mean()), 100.0 * error, plain)


def fit_logistic(features: Floats, labels: Floats, weights: Floats, *, penalty: float) -> Floats:
    """Minimise weighted log-loss with fractional labels plus ``penalty * |w|``, by Newton steps.

    Args:
        features: Float64 ``(n, k)``.
        labels: Float64 ``(n,)``, 0..1.
        weights: Float64 ``(n,)``.
        penalty: L1, on every coefficient; 0 for none.
    """
    solution = np.zeros(features.shape[1])
    for _ in range(_NEWTON_STEPS):
        chances = 1.0 / (1.0 + np.exp(-features @ solution))
        gradient = features.T @ (weights * (chances - labels))
        curvature = features.T @ (features * (weights * chances * (1.0 - chances))[:, None])
        curvature += 1e-10 * np.eye(len(solution))
        target = _lasso(curvature, curvature @ solution - gradient, penalty, solution)
        step = np.clip(target - solution, -2.0, 2.0)
        solution = solution + step
        if np.abs(step).max() < _CLOSE:
            break
    return solution


def _lasso(curvature: Floats, pull: Floats, penalty: float, start: Floats) -> Floats:
    """Minimise ``w' H w / 2 - pull' w + penalty |w|`` by coordinate descent (exact solve without penalty)."""
    if penalty == 0.0:
        return np.asarray(np.linalg.solve(curvature, pull), dtype=np.float64)
    solution = start.copy()
    for _ in range(_SWEEPS):
        before = solution.copy()
        for k in range(len(solution)):
            rest = pull[k] - curvature[k] @ solution + curvature[k, k] * solution[k]
            solution[k] = np.sign(rest) * max(abs(rest) - penalty, 0.0) / curvature[k, k]
        if np.abs(solution - before).max() < _CLOSE:
            break
    return solution
