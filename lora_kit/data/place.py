"""Puts every conversation of the first pass on its side, and compares it with the suites, in blocks.

A block's texts are gone when the next one comes; what stays is in the ledger, the splitter and the overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lora_kit.data.account import Tally
from lora_kit.data.checks import Problems
from lora_kit.data.ledger import Ledger
from lora_kit.data.near_duplicates import THRESHOLD, sketch
from lora_kit.data.overlap import SuiteOverlap, SuiteText
from lora_kit.data.split import Candidate, Placed, Side, Splitter, spoken
from lora_kit.data.types import Conversation
from lora_kit.errors import Problem
from lora_kit.recipe.schema import DataSpec

_BLOCK_ROWS = 512
_BLOCK_CHARACTERS = 1 << 20
LISTED_PAIRS = 100
_RELATED = {
    "overlap_with_validation": "is also",
    "near_validation": "is nearly",
    "group_in_validation": "belongs together with",
}


class _Waiting(NamedTuple):
    at: int
    key: bytes
    group: str
    role: str
    text: str


@dataclass(slots=True)
class Placer:
    """Takes conversations in the order of the ledger.

    Args:
        spec: The recipe's data section.
        ledger: Where sides are noted.
        problems: Where overlaps are collected if they are errors.
        overlap: The suites.
    """

    spec: DataSpec
    ledger: Ledger
    problems: Problems
    overlap: SuiteOverlap
    near: Tally = field(default_factory=Tally)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    _splitter: Splitter = field(init=False)
    _waiting: list[_Waiting] = field(default_factory=list)
    _characters: int = 0

    def __post_init__(self) -> None:
        self._splitter = Splitter(0.0 if self.spec.validation is not None else self.spec.validation_fraction)

    def add(self, at: int, conversation: Conversation, key: bytes, role: str) -> None:
        """Take one conversation.

        Args:
            at: Its number in the ledger, one more than that of the one before.
            conversation: What is said.
            key: Its `content_key`.
            role: Of its source.
        """
        text = spoken(conversation)
        self._waiting.append(_Waiting(at, key, conversation.group, role, text))
        self._characters += len(text)
        if len(self._waiting) >= _BLOCK_ROWS or self._characters >= _BLOCK_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Place what waits."""
        block, self._waiting, self._characters = self._waiting, [], 0
        sketches = sketch([one.text for one in block])
        for one, drawn in zip(block, sketches, strict=True):
            if self.ledger.lost(one.at):
                self._splitter.pass_over(one.key)
            else:
                role = self._role(one.role)
                self._note(one, self._splitter.place(Candidate(one.key, one.group, drawn), role))
        trained = [one for one in block if not self.ledger.lost(one.at)]
        trained = [one for one in trained if not self.ledger.is_held_out(one.at)]
        origins = [self.ledger.origin(one.at) for one in trained]
        self.overlap.add([one.text for one in trained], origins)

    def to_json(self) -> dict[str, Any]:
        """Return what the report says of near duplicates, of the split and of the suites."""
        index = self._splitter.index
        compared = {
            "similarity": THRESHOLD,
            "is_complete": index.is_complete,
            "indexed_rows": min(index.rows, index.limit),
            "crowded": index.crowded,
        }
        return {
            "near_duplicates": {**self.near.to_json(), "pairs": self.pairs, **compared},
            "split": self._splitter.to_json(),
            "suite_overlap": self.overlap.to_json(),
        }

    def _role(self, role: str) -> Side:
        if self.spec.validation is None:
            return Side.NEITHER
        return Side.VALIDATION if role == "validation" else Side.TRAIN

    def _note(self, one: _Waiting, placed: Placed) -> None:
        assert placed.number == one.at
        self.ledger.hold_out(one.at, held_out=placed.side is Side.VALIDATION)
        origin = self.ledger.origin(one.at)
        if placed.near:
            other, found = placed.near
            self.near.add(origin)
            if len(self.pairs) < LISTED_PAIRS:
                like = self.ledger.origin(other)
                self.pairs.append({"row": origin, "like": like, "similarity": round(found, 3)})
        if placed.lost:
            self.ledger.lose(one.at, placed.lost)
            if self.spec.on_overlap == "error" and placed.lost in _RELATED:
                like = self.ledger.origin(placed.relative)
                found_ = f"this row {_RELATED[placed.lost]} a validation row ({like})"
                self.problems.add([Problem(found_, origin, cure="set data.on_overlap=drop")])


def open_placer(
    spec: DataSpec, ledger: Ledger, problems: Problems, suites: Sequence[SuiteText] = ()
) -> Placer:
    """Build a placer for one pass."""
    return Placer(spec, ledger, problems, SuiteOverlap(suites))
