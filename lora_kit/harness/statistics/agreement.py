"""How far a judge agrees with itself and with others: kappa, position bias, length bias.

Every pair of answers is judged in both orders. A verdict that changes when the answers
swap places is the judge's, not the answers'.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lora_kit.harness.statistics.matches import Duel

VERDICTS = ("a", "b", "tie")
SWAPPED = {"a": "b", "b": "a", "tie": "tie"}


@dataclass(frozen=True, slots=True)
class PositionBias:
    """What swapping does to verdicts.

    Args:
        pairs: Pairs of answers that were judged in both orders.
        both_parsed: Of these, with a verdict in both.
        confusion: 3 x 3 counts over ``a, b, tie``: verdict in the first order, verdict in the second in the
            first's terms.
    """

    pairs: int
    both_parsed: int
    confusion: tuple[tuple[int, ...], ...]

    @property
    def consistent(self) -> int:
        """Pairs with the same verdict in both orders."""
        return sum(self.confusion[k][k] for k in range(3))

    @property
    def first_in_both(self) -> int:
        """Pairs in which whoever was shown first won, both times."""
        return self.confusion[0][1]

    @property
    def second_in_both(self) -> int:
        """Pairs in which whoever was shown second won, both times."""
        return self.confusion[1][0]

    @property
    def tie_in_one_order(self) -> int:
        """Pairs with a tie in exactly one order."""
        return self.both_parsed - self.consistent - self.first_in_both - self.second_in_both

    @property
    def kappa(self) -> float:
        """Cohen's kappa between the orders."""
        return cohen_kappa(self.confusion)


@dataclass(frozen=True, slots=True)
class Record:
    """Wins, ties and losses of one player."""

    win: int
    tie: int
    loss: int

    @property
    def win_rate_adjusted(self) -> float:
        """Wins and half the ties, as a share; 0 if there was no match."""
        total = self.win + self.tie + self.loss
        return (self.win + self.tie / 2) / total if total else 0.0


def cohen_kappa(confusion: Sequence[Sequence[int]]) -> float:
    """Agreement beyond chance of two raters, 1 = perfect; NaN if chance alone would agree always.

    Args:
        confusion: Square table of counts, one rater's verdicts by the other's.
    """
    table = np.asarray(confusion, dtype=np.float64)
    total = table.sum()
    observed = np.trace(table) / total
    chance = float((table.sum(axis=0) * table.sum(axis=1)).sum() / total**2)
    return float((observed - chance) / (1.0 - chance)) if chance < 1.0 else float("nan")


def position_bias(duels: Sequence[Duel]) -> PositionBias:
    """Compare the two orders of every pair."""
    counts: Counter[tuple[str, str]] = Counter()
    both = _both_orders(duels)
    for there, back in both:
        if there.verdict is not None and back.verdict is not None:
            counts[there.verdict, SWAPPED[back.verdict]] += 1
    confusion = tuple(tuple(counts[row, column] for column in VERDICTS) for row in VERDICTS)
    return PositionBias(len(both), counts.total(), confusion)


def reconciled(duels: Sequence[Duel]) -> dict[str, Record]:
    """Each player's record where a win needs both orders (MT-bench); half-parsed pairs are left out."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for there, back in _both_orders(duels):
        if there.verdict is None or back.verdict is None:
            continue
        agreed = there.verdict if there.verdict == SWAPPED[back.verdict] else "tie"
        outcomes[there.a][agreed] += 1
        outcomes[there.b][SWAPPED[agreed]] += 1
    return {name: Record(found["a"], found["tie"], found["b"]) for name, found in sorted(outcomes.items())}


def longer_wins(duels: Sequence[Duel], length: Callable[[str, str], int]) -> tuple[int, int]:
    """Length bias: how often the longer answer wins.

    Args:
        duels: What was judged.
        length: ``(player, item) -> characters``.

    Returns:
        Wins of the longer answer, and the decisive verdicts between answers of unequal length.
    """
    gaps = [
        (length(duel.a, duel.item) - length(duel.b, duel.item)) * (1 if duel.verdict == "a" else -1)
        for duel in duels
        if duel.verdict in {"a", "b"}
    ]
    return sum(gap > 0 for gap in gaps), sum(gap != 0 for gap in gaps)


def head_to_head(duels: Sequence[Duel]) -> dict[tuple[str, str], Mapping[str, int]]:
    """Win, tie, loss and unparsed of every ordered pair of players, over both orders of showing."""
    table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    words = {"a": "win", "tie": "tie", "b": "loss", None: "unparsed"}
    for duel in duels:
        back = SWAPPED[duel.verdict] if duel.verdict else None
        table[duel.a, duel.b][words[duel.verdict]] += 1
        table[duel.b, duel.a][words[back]] += 1
    return {pair: {word: found[word] for word in words.values()} for pair, found in table.items()}


def _both_orders(duels: Sequence[Duel]) -> list[tuple[Duel, Duel]]:
    """Pairs of duels on one item that differ in who is shown first; the alphabetical order comes first."""
    found = {(duel.item, duel.a, duel.b): duel for duel in duels}
    return [
        (duel, found[duel.item, duel.b, duel.a])
        for duel in found.values()
        if duel.a < duel.b and (duel.item, duel.b, duel.a) in found
    ]
