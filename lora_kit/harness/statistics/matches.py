"""Pairwise verdicts as arrays: who was shown first, who second, and how it went."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_kit.harness.statistics.bootstrap import Floats

Ints = NDArray[np.int64]
POINTS = {"a": 1.0, "tie": 0.5, "b": 0.0}  # of the one shown first


@dataclass(frozen=True)
class Duel:
    """One judgment of two answers to one prompt.

    Args:
        item: The prompt; judgments of one prompt are not independent.
        a: Whose answer was shown first.
        b: Whose was shown second.
        verdict: ``a``, ``b``, ``tie``, or None where the reply could not be parsed.
    """

    item: str
    a: str
    b: str
    verdict: str | None


@dataclass(frozen=True)
class Matches:
    """The duels that have a verdict.

    Args:
        players: Names in order.
        first: Int64 ``(n,)``, index of the one shown first.
        second: Int64 ``(n,)``.
        points: Float64 ``(n,)``, 1, 0.5 or 0 for the first.
        items: n prompts.
    """

    players: tuple[str, ...]
    first: Ints
    second: Ints
    points: Floats
    items: tuple[str, ...]


def matches_of(duels: Iterable[Duel]) -> Matches:
    """Keep what was parsed; an unparsed reply is no tie and no loss."""
    parsed = [(duel, POINTS[duel.verdict]) for duel in duels if duel.verdict is not None]
    players = tuple(sorted({name for duel, _ in parsed for name in (duel.a, duel.b)}))
    number = {name: index for index, name in enumerate(players)}
    return Matches(
        players,
        np.array([number[duel.a] for duel, _ in parsed], dtype=np.int64),
        np.array([number[duel.b] for duel, _ in parsed], dtype=np.int64),
        np.array([points for _, points in parsed], dtype=np.float64),
        tuple(duel.item for duel, _ in parsed),
    )
