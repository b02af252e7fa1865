"""Win rate of a model against a baseline, as AlpacaEval counts it.

A preference is in [1, 2]: 1 the baseline is better, 2 the model is, 1.5 (or 0) a draw;
a failed judgment is None and is dropped, never counted as a loss.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class WinRate:
    """What AlpacaEval's leaderboard says of a model; rates in per cent.

    Args:
        win_rate: Mean preference for the model.
        standard_error: Of the mean, from the sample standard deviation.
        n_wins: Preferences above the middle.
        n_wins_base: Below it.
        n_draws: In the middle.
        n_total: Judged, without the failed.
        discrete_win_rate: Wins and half the draws.
    """

    win_rate: float
    standard_error: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    discrete_win_rate: float


def shares(preferences: Sequence[float | None]) -> list[float | None]:
    """Share of the model, 0..1, for each preference; None stays None."""
    return [None if p is None else (0.5 if p == 0.0 else p - 1.0) for p in preferences]


def win_rate(preferences: Sequence[float | None]) -> WinRate:
    """Summarise preferences; NaN rates if none was judged."""
    known = np.array([share for share in shares(preferences) if share is not None], dtype=np.float64)
    total = len(known)
    wins, draws = int((known > 0.5).sum()), int((known == 0.5).sum())
    if not total:
        return WinRate(math.nan, math.nan, 0, 0, 0, 0, math.nan)
    error = float(np.std(known, ddof=1) / math.sqrt(total)) if total > 1 else math.nan
    return WinRate(
        win_rate=100.0 * float(known.mean()),
        standard_error=100.0 * error,
        n_wins=wins,
        n_wins_base=total - wins - draws,
        n_draws=draws,
        n_total=total,
        discrete_win_rate=100.0 * (wins + draws / 2) / total,
    )


def logprob_preference(top_logprobs: Mapping[str, float], *, model_shown: str) -> float | None:
    """AlpacaEval 2's preference from one token: ``m`` is the first shown, ``M`` the second.

    Args:
        top_logprobs: Token to natural log-probability; a token that is absent has probability 0.
        model_shown: ``first`` or ``second``: where the model's answer was (the other is the baseline's).

    Returns:
        1 plus the probability that the model is better; None if neither token is there.
    """
    first, second = (top_logprobs.get(token, -math.inf) for token in ("m", "M"))
    if first == second == -math.inf:
        return None
    best = max(first, second)
    weights = math.exp(first - best), math.exp(second - best)
    share = weights[model_shown == "second"] / sum(weights)
    return 1.0 + share
