"""Keys and values of many rows, in slots that a row keeps until it is finished and another row takes over.

transformers' cache concatenates, which copies everything that is known once a token and once a layer, and
holds a batch to one length by padding. Here room is made ahead, each row has its own length, and a prompt's
beginning that all rows share is computed once and copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

GROWTH_TOKENS = 64
FEW = 8  # other tokens of a row in a step: up to here all such rows attend in one product


class Span(NamedTuple):
    """Tokens that are computed for one row.

    Args:
        slot: Where the row's keys and values are.
        start: Tokens of the row that are known already.
        tokens: Tokens that are new.
    """

    slot: int
    start: int
    tokens: int

    @property
    def end(self) -> int:
        """Tokens of the row that are known afterwards."""
        return self.start + self.tokens


class Group(NamedTuple):
    """Tokens of a step that attend together.

    Args:
        rows: Their rows, int64 ``(B,)``; None for the first B rows of the cache.
        tokens: Numbers ``(B, T)`` of each row's tokens in the step; its last one again where it has fewer.
    """

    rows: Tensor | None
    tokens: Tensor


class Step(NamedTuple):
    """Tokens that one pass computes for the first rows, one or more of each, those of a row in order.

    Args:
        slots: Row of each token, int64 ``(N,)``.
        positions: Its position, int64 ``(N,)``.
        groups: The first token of every row; then the others, of rows that have a few.
        spans: Of rows that have many others, where in the step these begin, and the span that they are.
    """

    slots: Tensor
    positions: Tensor
    groups: Sequence[Group]
    spans: Sequence[tuple[int, Span]]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.groups[0].tokens)


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values, ``(slots, key-value heads, capacity, D)`` for each layer.

    A forward pass is either a ``read`` of spans laid end to end, or a ``step`` of a few tokens for each of
    the first B slots. Whoever runs it announces it first; then each layer calls :meth:`update`.

    Args:
        slots: How many rows there can be at once.
        spans: What the present pass computes; empty in a step.
        step: What it computes if it is a step.
        longest: Most tokens that any row has after the pass.
        quick: Whether ``llama_step`` computes the steps; None before the first one, which finds out.
    """

    slots: int
    spans: Sequence[Span] = ()
    step: Step | None = None
    longest: int = 0
    quick: bool | None = None
    _keys: list[Tensor] = field(default_factory=list)
    _values: list[Tensor] = field(default_factory=list)
    _index: tuple[int, Tensor] | None = None

    def announce_read(self, spans: Sequence[Span]) -> None:
        """Say that the next pass reads spans laid end to end."""
        self.spans, self.step = spans, None
        self.longest = max(span.end for span in spans)

    def announce_step(self, lengths: Sequence[int], counts: Sequence[int], device: torch.device) -> Step:
        """Say that the next pass computes tokens for each of the first rows.

        Args:
            lengths: Tokens known of each row.
            counts: Tokens that are new of each, at least one.
            device: Of the model.
        """
        starts = list(accumulate(counts, initial=0))[:-1]
        groups = [Group(None, torch.tensor(starts, device=device)[:, None])]
        if few := [row for row, count in enumerate(counts) if 1 < count <= FEW + 1]:
            most = range(1, max(counts[row] for row in few))
            tokens = [[starts[row] + min(at, counts[row] - 1) for at in most] for row in few]
            groups.append(Group(torch.tensor(few, device=device), torch.tensor(tokens, device=device)))
        spans = [
            (starts[row] + 1, Span(row, lengths[row] + 1, count - 1))
            for row, count in enumerate(counts)
            if count > FEW + 1
        ]
        slots = [row for row, count in enumerate(counts) for _ in range(count)]
        places = [lengths[row] + at for row, count in enumerate(counts) for at in range(count)]
        self.spans, self._index = (), None
        slot, position = (torch.tensor(numbers, device=device) for numbers in (slots, places))
        self.step = Step(slot, position, groups, spans)
        self.longest = max(length + count for length, count in zip(lengths, counts, strict=True))
        return self.step

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Take in a layer's new keys and values.

        Args:
            key: Float ``(1, key-value heads, T, D)``; in a step of one token a row also
                ``(B, key-value heads, 1, D)``.
            value: Like ``key``.
            layer: Number of the layer.

        Returns:
            What the new tokens may look at: the first B rows up to the longest one, or the row of a single
            span. With several spans, use :meth:`row`.
        """
        keys, values = self._room(key, value, layer)
        if self.step is not None:
            self._store(keys, key)
            self._store(values, value)
            rows = self.step.rows
            return keys[:rows, :, : self.longest], values[:rows, :, : self.longest]
        at = 0
        for span in self.spans:
            keys[span.slot, :, span.start : span.end] = key[0, :, at : at + span.tokens]
            values[span.slot, :, span.start : span.end] = value[0, :, at : at + span.tokens]
            at += span.tokens
        return self.row(layer, self.spans[0])

    def _store(self, stored: Tensor, new: Tensor) -> None:
        """Write a step's tokens: as rows of one long matrix, four times as quick as by three indices."""
        assert self.step is not None
        _, heads, capacity, size = stored.shape
        if self._index is None or self._index[0] != capacity:
            first = (self.step.slots * heads * capacity + self.step.positions)[:, None]
            head = torch.arange(heads, device=stored.device) * capacity
            self._index = capacity, (first + head).flatten()
        stored.view(-1, size).index_copy_(0, self._index[1], new.transpose(1, 2).reshape(-1, size))

    def get_seq_length(self) -> int:
        """Places that a pass can look at; MPT asks for it, as of transformers' caches."""
        return self.longest

    def row(self, layer: int, span: Span) -> tuple[Tensor, Tensor]:
        """Return keys and values of one row up to the end of a span, ``(1, key-value heads, end, D)``."""
        return (
            self._keys[layer][span.slot : span.slot + 1, :, : span.end],
            self._values[layer][span.slot : span.slot + 1, :, : span.end],
        )

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first ``tokens`` of one slot into another."""
        for stored in (*self._keys, *self._values):
            stored[target, :, :tokens] = stored[source, :, :tokens]

    def _room(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Make room in a layer; zeros, because what is masked is multiplied by 0, and NaN would stay."""
        assert layer <= len(self._keys), "layers come in order"
        if layer == len(self._keys):
            self._keys.append(key.new_zeros(self.slots, key.shape[1], self._capacity(), key.shape[3]))
            self._values.append(value.new_zeros(self.slots, value.shape[1], self._capacity(), value.shape[3]))
        for stored in (self._keys, self._values):
            old = stored[layer]
            if old.shape[2] < self.longest:
                grown = old.new_zeros(*old.shape[:2], self._capacity(), old.shape[3])
                grown[:, :, : old.shape[2]] = old
                stored[layer] = grown
        return self._keys[layer], self._values[layer]

    def _capacity(self) -> int:
        return -(-self.longest // GROWTH_TOKENS) * GROWTH_TOKENS
