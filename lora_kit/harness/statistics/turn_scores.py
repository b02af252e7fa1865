"""MT-bench's score: the mean over turns, with what the judge did not say left out."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TurnScore:
    """One judged turn.

    Args:
        item: The question.
        category: Its category.
        turn: 1 or 2.
        score: 1..10, None if the reply could not be parsed.
    """

    item: str
    category: str
    turn: int
    score: float | None


@dataclass(frozen=True, slots=True)
class TurnSummary:
    """A model on MT-bench; NaN where nothing was judged.

    Args:
        n: Rows, unparsed ones included.
        n_unparsed: Rows without a score.
        turn1: Mean of first turns.
        turn2: Mean of second turns.
        average: Mean of all turns.
        by_category: Mean of each category.
    """

    n: int
    n_unparsed: int
    turn1: float
    turn2: float
    average: float
    by_category: dict[str, float]


def turn_summary(rows: Sequence[TurnScore]) -> TurnSummary:
    """Average turns; rows that are there twice count twice, see ``last_of_each``."""
    categories: dict[str, list[TurnScore]] = defaultdict(list)
    for row in rows:
        categories[row.category].append(row)
    return TurnSummary(
        n=len(rows),
        n_unparsed=sum(row.score is None for row in rows),
        turn1=_mean(row.score for row in rows if row.turn == 1),
        turn2=_mean(row.score for row in rows if row.turn == 2),
        average=_mean(row.score for row in rows),
        by_category={name: _mean(row.score for row in found) for name, found in sorted(categories.items())},
    )


def last_of_each(rows: Iterable[TurnScore]) -> list[TurnScore]:
    """The last row of each question and turn: a file may hold two runs, not to be averaged silently."""
    return list({(row.item, row.turn): row for row in rows}.values())


def _mean(scores: Iterable[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else math.nan
