"""Guesses at the next tokens: what followed the last time that the same tokens stood there.

A greedy answer stays the same, because a guess counts only where the model itself chooses that token
(speculative decoding, arXiv 2211.17192; guessing from the text itself is known as prompt lookup). Small
models repeat themselves and their prompt: over SmolLM2-135M's answers to 64 instructions a guess after three
known tokens is right two times in three, and nine times in ten after eight right ones in a row.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, cycle, islice

from lora_kit.model.few_rows import columns_at
from lora_kit.model.kv_cache import FEW

ALIKE = 3  # tokens that must have stood there before
PASS = 14  # columns that take as long as what a pass costs whatever its width (SmolLM2-135M, two AVX2 cores)


@dataclass(slots=True)
class Draft:
    """What a row's text says about its own continuation.

    Args:
        text: Ids so far.
        right: Guesses in a row that were right.
    """

    text: list[int]
    right: int = 0
    _after: dict[tuple[int, ...], int] = field(default_factory=dict)
    _seen: int = ALIKE

    def guess(self, most: int) -> list[int]:
        """Guess up to ``most`` next ids, maybe none; what repeats itself is taken to go on so."""
        at, count = self._place(), min(most, FEW)
        return [] if at is None else [*islice(cycle(self.text[at : at + count]), count)]

    def chance(self, number: int) -> float:
        """How likely it is that the guess with this number, from 1, and all before it are right.

        After n right ones in a row the next is right in (n + 2) of (n + 3) cases: the rule of succession with
        a prior fitted to SmolLM2-135M's answers.
        """
        return (self.right + 2) / (self.right + 2 + number)

    def grow(self, chosen: Sequence[int]) -> None:
        """Take in the ids that were chosen, and see which of them one would have guessed."""
        for token in chosen:
            at = self._place()
            self.right = self.right + 1 if at is not None and self.text[at] == token else 0
            self.text.append(token)

    def _place(self) -> int | None:
        """Where in the text the next id may stand."""
        for end in range(self._seen, len(self.text)):
            self._after[tuple(self.text[end - ALIKE : end])] = end
        self._seen = max(self._seen, len(self.text))
        return self._after.get(tuple(self.text[-ALIKE:]))


def guesses(drafts: Sequence[Draft | None], room: Sequence[int], tokens: int) -> list[list[int]]:
    """Guess for rows that are computed together, so many that most tokens come out a second.

    A pass takes as long as it has columns, and a part whatever its width.

    Args:
        drafts: Of each row; None where nothing is guessed.
        room: Most guesses of each.
        tokens: That are computed anyway.
    """
    found = [draft.guess(most) if draft else [] for draft, most in zip(drafts, room, strict=True)]
    chances = [
        (draft.chance(number), row)
        for row, draft in enumerate(drafts)
        if draft
        for number in range(1, len(found[row]) + 1)
    ]
    chances.sort(key=lambda one: -one[0])  # a row's own stay in order
    yields = accumulate((chance for chance, _ in chances), initial=float(len(drafts)))
    rates = [gain / (PASS + columns_at(tokens + more)) for more, gain in enumerate(yields)]
    best = max(range(len(rates)), key=rates.__getitem__)
    counts = Counter(row for _, row in chances[:best])
    return [guess[: counts[row]] for row, guess in enumerate(found)]
