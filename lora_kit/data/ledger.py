"""Compact notes on every conversation of a data set: what the first pass leaves for the second.

A million rows don't fit into memory as Python objects, but all that has to be known of
all of them at once (which are equal, which side each is on, why one is left out) fits
into some sixty bytes each. So rows stream by twice, and only these notes stay.
"""

from array import array
from collections.abc import Iterator

import numpy as np

from lora_kit.data.types import Conversation

KEY_BYTES = 16
Ints = np.ndarray[tuple[int], np.dtype[np.int64]]


class Ledger:
    """One entry for each conversation, in the order of the files; numbers of entries count from 0."""

    def __init__(self) -> None:
        self._keys = bytearray()
        self._digests = bytearray()
        self._held_out = bytearray()
        self._lost = bytearray()
        self._origins = bytearray()
        self._origin_ends = array("Q")
        self._reasons = [""]

    def __len__(self) -> int:
        return len(self._lost)

    def enter(self, conversation: Conversation, *, key: bytes, digest: bytes, held_out: bool) -> int:
        """Note a conversation; returns the entry's number.

        Args:
            conversation: Only its origin is kept.
            key: 16 bytes, its `content_key`.
            digest: 16 bytes, equal for conversations that say the same to the character.
            held_out: Whether it is for validation.
        """
        assert len(key) == len(digest) == KEY_BYTES
        self._keys += key
        self._digests += digest
        self._held_out.append(held_out)
        self._lost.append(0)
        self._origins += conversation.origin.encode("utf-8", "surrogateescape")
        self._origin_ends.append(len(self._origins))
        return len(self._lost) - 1

    def origin(self, at: int) -> str:
        """Where an entry's conversation came from."""
        start = self._origin_ends[at - 1] if at else 0
        return self._origins[start : self._origin_ends[at]].decode("utf-8", "surrogateescape")

    def lose(self, at: int, reason: str) -> None:
        """Leave a conversation out."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        self._lost[at] = self._reasons.index(reason)

    def lost(self, at: int) -> str:
        """Why a conversation is left out; empty if it isn't."""
        return self._reasons[self._lost[at]]

    def is_held_out(self, at: int) -> bool:
        """Whether a conversation is for validation."""
        return bool(self._held_out[at])

    def hold_out(self, at: int, *, held_out: bool) -> None:
        """Put a conversation on a side."""
        self._held_out[at] = held_out

    @property
    def kept(self) -> int:
        """Number of conversations that are not left out."""
        return self._lost.count(0)

    def repeats(self) -> Iterator[int]:
        """Yield the entries whose conversation was there before, to the character."""
        groups = _groups(self._digests)
        _, first = np.unique(groups, return_index=True)
        again = np.ones(len(groups), dtype=bool)
        again[first] = False
        yield from np.flatnonzero(again).tolist()


def _groups(keys: bytearray) -> Ints:
    """Number the distinct keys; equal keys get equal numbers, below the count of keys."""
    halves = np.frombuffer(bytes(keys), dtype=np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    starts = np.ones(len(order), dtype=np.int64)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    groups: Ints = np.empty(len(order), dtype=np.int64)
    groups[order] = np.cumsum(starts) - 1
    return groups
