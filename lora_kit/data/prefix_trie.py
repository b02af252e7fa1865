"""Rows that begin alike as a trie, so that what they share is computed once.

A causal decoder's state at a token depends on the tokens before it alone, so rows with the same beginning (a
system prompt, a template's header, the paths of one message tree) have the same states there, and gradients
of the branches add up in them. A node of the trie is a segment: a run of tokens that continues its parent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

# A split costs an attention call in every layer and saves whole tokens of every layer: about one token pays.
# Rows whose first words happen to agree would scatter into tiny segments, though.
LEAST_SAVED = 16
Indices: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"


class Node(NamedTuple):
    """A run of tokens that is computed once.

    Args:
        row: A row that it is part of.
        start: Its first token's position in that row.
        stop: The position after its last token.
        parent: Index of the segment that it continues; -1 for none.
    """

    row: int
    start: int
    stop: int
    parent: int


@dataclass(frozen=True)
class Trie:
    """Rows laid out end to end, shared beginnings once.

    Args:
        segments: In the order of the layout; a parent comes before its children.
        leaves: The segment that each row ends in.
    """

    segments: tuple[Node, ...]
    leaves: tuple[int, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each segment."""
        return tuple(segment.stop - segment.start for segment in self.segments)

    @property
    def parents(self) -> tuple[int, ...]:
        """Parent of each segment, -1 for none."""
        return tuple(segment.parent for segment in self.segments)

    def places(self, row: int) -> Indices:
        """Return where in the layout each token of a row is."""
        parts, index = [], self.leaves[row]
        while index >= 0:
            segment = self.segments[index]
            parts.append(np.arange(segment.stop - segment.start) + self._starts[index])
            index = segment.parent
        return np.concatenate(parts[::-1])

    @cached_property
    def _starts(self) -> Indices:
        return np.cumsum([0, *self.lengths[:-1]])


class Prefixes:
    """Which of some rows begin alike, and how far.

    Args:
        rows: Token ids of each row, at least one a row.

    Example:
        >>> prefixes = Prefixes([list(range(20)) + [50], [7], list(range(30))])
        >>> prefixes.trie([0, 1, 2]).segments
        (Node(row=0, start=0, stop=20, parent=-1), Node(row=2, start=20, stop=30, parent=0), \
Node(row=0, start=20, stop=21, parent=0), Node(row=1, start=0, stop=1, parent=-1))
        >>> prefixes.tokens([0, 1, 2]), prefixes.tokens([0, 1])
        (32, 22)
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        arrays = [np.asarray(row, dtype=np.int64) for row in rows]
        self.lengths = [len(array) for array in arrays]
        self.order = sorted(range(len(rows)), key=lambda row: (tuple(rows[row]), row))
        self._rank = {row: rank for rank, row in enumerate(self.order)}
        neighbours = zip(self.order, self.order[1:], strict=False)
        self._common = np.array(
            [common_beginning(arrays[one], arrays[other]) for one, other in neighbours], np.int64
        )

    def trie(self, rows: Sequence[int]) -> Trie:
        """Lay out some of the rows; the order they are named in decides the order of ``leaves`` alone."""
        ranks = sorted(self._rank[row] for row in rows)
        common = [int(self._common[a:b].min()) for a, b in pairwise(ranks)]
        chosen = [self.order[rank] for rank in ranks]
        segments: list[Node] = []
        leaf: dict[int, int] = {}
        groups = [(0, len(chosen), 0, -1)]
        while groups:  # depth first: no recursion, whose depth rows could choose
            first, last, depth, parent = groups.pop()
            if last - first == 1:
                row = chosen[first]
                if depth < self.lengths[row]:
                    segments.append(Node(row, depth, self.lengths[row], parent))
                    parent = len(segments) - 1
                leaf[row] = parent
                continue
            shared = min(common[first : last - 1])
            cuts = [first, *(n + 1 for n in range(first, last - 1) if common[n] == shared), last]
            if (last - first - 1) * (shared - depth) >= LEAST_SAVED:
                segments.append(Node(chosen[first], depth, shared, parent))
                depth, parent = shared, len(segments) - 1
            groups += [(a, b, depth, parent) for a, b in pairwise(cuts)][::-1]
        return Trie(tuple(segments), tuple(leaf[row] for row in rows))

    def tokens(self, rows: Sequence[int]) -> int:
        """Count the tokens of :meth:`trie`."""
        return sum(self.trie(rows).lengths)


def common_beginning(one: Indices, other: Indices) -> int:
    """Length of the longest common beginning."""
    shorter = min(len(one), len(other))
    differs = one[:shorter] != other[:shorter]
    return int(differs.argmax()) if differs.any() else shorter
