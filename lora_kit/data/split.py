"""Which rows are held out, so that no held-out row has a relative among the training rows.

The rule, row by row in the order of the files. A row's relatives are the earlier rows of its group (one
message tree), with its content (but for case, white space and width), or nearly its content
(``near_duplicates``), unless they were left out. A row

1. without relatives is held out when the hash of its group, or else of its content, falls below the share;
2. with relatives on one side goes to that side;
3. with relatives on both sides is left out, and counted.

So rows added at the end move no earlier row, and rows added anywhere move no row without relatives. A
larger share keeps the rows of a smaller one, relatives aside. Where the held-out rows are a file, they are
read first, and a training row that has a relative among them is left out.
"""

import hashlib
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from lora_kit.data.near_duplicates import NearIndex, Sketch
from lora_kit.data.types import Conversation

_VERSION = b"lora_kit split 1"
_ASCII_SPACE = b" \t\n\v\f\r\x1c\x1d\x1e\x1f"
USUAL_FRACTION = 0.05


class Side(IntEnum):
    """Where a row ends."""

    NEITHER = 0
    TRAIN = 1
    VALIDATION = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of a conversation that asks for a side; nothing of its text.

    Args:
        key: Its `content_key`.
        group: Its group, empty if it has none.
        sketch: Of its `spoken` text.
    """

    key: bytes
    group: str
    sketch: Sketch


@dataclass(frozen=True, slots=True)
class Placed:
    """Where it was put.

    Args:
        number: Its number, from 0 in the order of placing.
        side: NEITHER if it is left out.
        lost: Why it is left out, empty if it isn't.
        first: Number of the first conversation with its key, its own if it is the first.
        relative: Number of a relative, the one that decided if it is left out; -1 for none.
        near: (number, similarity) of the near duplicate with another key that was found first.
    """

    number: int
    side: Side
    lost: str = ""
    first: int = -1
    relative: int = -1
    near: tuple[int, float] | None = None


@dataclass(slots=True)
class Splitter:
    """Places conversations, one after the other, in about 2 KB each (100 bytes past the index's limit).

    Args:
        fraction: Share to hold out, 0 to 1.
        index: Where near duplicates are looked up.
        followed: Conversations that a relative brought to another side than their own hash would have.
        passed_over: Conversations that were left out for reasons of their own.
    """

    fraction: float
    index: NearIndex = field(default_factory=NearIndex)
    followed: int = 0
    passed_over: int = 0
    _sides: bytearray = field(default_factory=bytearray)
    _clusters: "array[int]" = field(default_factory=lambda: array("I"))
    _parents: dict[int, int] = field(default_factory=dict)
    _first: dict[bytes, int] = field(default_factory=dict)
    _kept_twin: dict[int, int] = field(default_factory=dict)
    _groups: dict[str, int] = field(default_factory=dict)

    def pass_over(self, key: bytes) -> Placed:
        """Give a number to a conversation that is left out for reasons of its own."""
        number = self._next()
        self.passed_over += 1
        return Placed(number, Side.NEITHER, first=self._first.setdefault(key, number))

    def place(self, one: Candidate, role: Side = Side.NEITHER) -> Placed:
        """Choose the side of one conversation.

        Args:
            one: What is known of it.
            role: The side that its file is for; NEITHER to choose by the rule. All conversations of a
                validation file come before the first one of a training file.
        """
        number = self._next()
        first = self._first.setdefault(one.key, number)
        twin = first if self._sides[first] else self._kept_twin.get(first, -1)
        relatives = [(twin, "overlap_with_validation")] if twin >= 0 else []
        mate = self._groups.get(one.group, -1) if one.group else -1
        near = [] if twin >= 0 else list(self._near(one.sketch, mate))
        relatives += [(other, "near_validation") for other, _ in near]
        relatives += [(mate, "group_in_validation")] if mate >= 0 else []
        side, lost = self._decide(one, role, relatives)
        for other, _ in relatives:
            self._join(number, other)
        if side:
            self._keep(number, one, side, first=first, twin=twin)
        told = [other for other, why in relatives if why == lost] or [other for other, _ in relatives]
        relative = told[0] if told else -1
        return Placed(number, side, lost, first, relative, near[0] if near else None)

    def to_json(self) -> dict[str, Any]:
        """Say how large the clusters of relatives are, and what a split that ignores them would leak."""
        sizes = Counter(Counter(self._root(number) for number in range(len(self._sides))).values())
        sizes[1] -= self.passed_over
        examples = len(self._sides) - self.passed_over
        fraction = self.fraction or USUAL_FRACTION
        several = {size: count for size, count in sizes.items() if size > 1}
        return {
            "examples": examples,
            "clusters": sum(several.values()),
            "clustered_examples": sum(size * count for size, count in several.items()),
            "largest_cluster": max((size for size in sizes if sizes[size]), default=0),
            "followed": self.followed,
            "random_split": {
                "fraction": fraction,
                "validation_examples": round(examples * fraction, 1),
                "leaked_examples": round(expected_leaks(sizes, fraction), 1),
            },
        }

    def _next(self) -> int:
        number = len(self._sides)
        self._sides.append(Side.NEITHER)
        self._clusters.append(number)
        return number

    def _near(self, row: Sketch, mate: int) -> Iterator[tuple[int, float]]:
        """Find at most one near duplicate on each side; relatives of its mates don't count."""
        sides: set[int] = set()
        home = self._root(mate) if mate >= 0 else -1

        def is_wanted(other: int) -> bool:
            return self._sides[other] not in sides and self._root(other) != home

        for other, found in self.index.like(row, is_wanted):
            sides.add(self._sides[other])
            yield other, found

    def _decide(self, one: Candidate, role: Side, relatives: list[tuple[int, str]]) -> tuple[Side, str]:
        sides = {Side(self._sides[other]) for other, _ in relatives}
        if role is Side.VALIDATION:
            return role, ""
        if role is Side.TRAIN:
            reasons = [why for other, why in relatives if self._sides[other] == Side.VALIDATION]
            return (Side.NEITHER, reasons[0]) if reasons else (role, "")
        if len(sides) > 1:
            return Side.NEITHER, "near_both_sides"
        key = group_key(one.group) if one.group else one.key
        own = Side.VALIDATION if is_held_out(key, self.fraction) else Side.TRAIN
        side = sides.pop() if sides else own
        self.followed += side != own
        return side, ""

    def _keep(self, number: int, one: Candidate, side: Side, *, first: int, twin: int) -> None:
        self._sides[number] = side
        if one.group:
            self._groups.setdefault(one.group, number)
        if twin < 0:
            self.index.enter(number, one.sketch)
            if first != number:
                self._kept_twin[first] = number

    def _root(self, number: int) -> int:
        number = self._clusters[number]
        while number in self._parents:
            number = self._parents[number]
        return number

    def _join(self, one: int, other: int) -> None:
        ours, theirs = self._root(one), self._root(other)
        if ours == one:
            self._clusters[one] = theirs
        elif ours != theirs:
            self._parents[ours] = theirs


def expected_leaks(sizes: Counter[int], fraction: float) -> float:
    """Return how many rows a plain random split holds out, on average, that have a relative in training.

    A row in a cluster of n is held out with probability f, and all its n - 1 relatives are with f^(n-1).

    Args:
        sizes: Size of a cluster -> how many there are.
        fraction: Share f that is held out.
    """
    return sum(count * size * fraction * (1 - fraction ** (size - 1)) for size, count in sizes.items())


def spoken(conversation: Conversation) -> str:
    """Return what is said, for comparisons; system messages, which rows share by nature, are left out."""
    parts = []
    for message in conversation.messages:
        if message.role != "system":
            parts += [message.content, message.context] if message.context else [message.content]
    return "\n".join(parts)


def content_key(conversation: Conversation) -> bytes:
    """Return 16 bytes that are equal for conversations that differ at most in case, white space and width."""
    parts = []
    for message in conversation.messages:
        parts += [message.role.encode(), normalised(message.context), normalised(message.content)]
    return _key(parts)


def group_key(group: str) -> bytes:
    """Return the key that all rows of a group are placed by."""
    return _key([b"group", group.encode()])


def is_held_out(key: bytes, fraction: float) -> bool:
    """Say whether rows with this key belong to the validation rows.

    Args:
        key: The `group_key` of rows that have a group, or else the `content_key`.
        fraction: Share to hold out, 0 to 1.
    """
    return int.from_bytes(key[:8], "big") < fraction * 2.0**64


def normalised(text: str) -> bytes:
    """Return text in lower case and NFKC form, without white space, as UTF-8."""
    if not text:
        return b""
    if text.isascii():
        return text.lower().encode().translate(None, _ASCII_SPACE)
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()).encode()


def _key(parts: list[bytes]) -> bytes:
    """Hash parts so that no two lists of parts run together into the same bytes."""
    lengths = ",".join([str(len(part)) for part in parts]).encode()
    return hashlib.sha256(b"\0".join([_VERSION, lengths, *parts])).digest()[:16]
