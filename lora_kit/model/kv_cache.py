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
FEW = 4  # other tokens of a row in a step: up to here such rows attend in one product


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


class Others(NamedTuple):
    """Tokens behind the first one of rows that have a few.

    Args:
        rows: Which rows, int64 ``(R,)``.
        tokens: Numbers ``(R, T)`` of their other tokens; the last one again where a row has fewer.
    """

    rows: Tensor
    tokens: Tensor


class Step(NamedTuple):
    """Tokens that one pass computes for the first rows, one or more of each, those of a row in order.

    Args:
        slots: Row of each token, int64 ``(N,)``.
        positions: Its position, int64 ``(N,)``.
        firsts: Number of the first token of each row, int64 ``(B,)``.
        others: Of rows that have a few, if there are any.
        place: Where each token is in ``firsts`` and behind it ``others``, int64 ``(N,)``; None if each row
            has one token. Tokens of spans are in neither, and get 0.
        spans: Of rows that have many others, where in the step these begin, and the span that they are.
    """

    slots: Tensor
    positions: Tensor
    firsts: Tensor
    others: Others | None
    place: Tensor | None
    spans: Sequence[tuple[int, Span]]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.firsts)


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values, ``(slots, key-value heads, 2, capacity, D)`` for each layer.

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
    _stored: list[Tensor] = field(default_factory=list)
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
        slots = [row for row, count in enumerate(counts) for _ in range(count)]
        within = [at for count in counts for at in range(count)]
        positions = [lengths[row] + at for row, at in zip(slots, within, strict=True)]
        spans = [
            (starts[row] + 1, Span(row, lengths[row] + 1, count - 1))
            for row, count in enumerate(counts)
            if count > FEW + 1
        ]
        few = [row for row, count in enumerate(counts) if 1 < count <= FEW + 1]
        most = max((counts[row] - 1 for row in few), default=0)
        tokens = [[starts[row] + 1 + min(at, counts[row] - 2) for at in range(most)] for row in few]
        place = [0] * len(slots)
        for at, number in enumerate([*starts, *(number for row in tokens for number in row)]):
            place[number] = at
        self.spans, self._index = (), None
        slot, position, first = (torch.tensor(one).to(device) for one in (slots, positions, starts))
        others = Others(torch.tensor(few).to(device), torch.tensor(tokens).to(device)) if few else None
        moved = torch.tensor(place).to(device) if len(slots) > len(counts) else None
        self.step = Step(slot, position, first, others, moved, spans)
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
        if self.step is not None:
            pairs = torch.stack((key, value), 2)  # (1 or B, heads, 2, T or 1, D)
            return self.take_in(pairs.permute(0, 3, 1, 2, 4).flatten(0, 1), layer)
        stored = self._room(key, key.shape[1], layer)
        at = 0
        for span in self.spans:
            part = slice(at, at := at + span.tokens)
            stored[span.slot, :, 0, span.start : span.end] = key[0, :, part]
            stored[span.slot, :, 1, span.start : span.end] = value[0, :, part]
        return self.row(layer, self.spans[0])

    def take_in(self, pairs: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Take in keys and values of a step's tokens, ``(N, key-value heads, 2, D)``, as :meth:`update`."""
        assert self.step is not None
        stored = self._room(pairs, pairs.shape[1], layer)
        _, heads, _, capacity, size = stored.shape
        if self._index is None or self._index[0] != capacity:
            first = (self.step.slots * (2 * heads * capacity) + self.step.positions)[:, None]
            part = torch.arange(2 * heads, device=stored.device) * capacity
            self._index = capacity, (first + part).flatten()
        # As rows of one long matrix: four times as quick as by three indices.
        stored.view(-1, size).index_copy_(0, self._index[1], pairs.reshape(-1, size))
        known = stored[: self.step.rows, :, :, : self.longest]
        return known[:, :, 0], known[:, :, 1]

    def get_seq_length(self) -> int:
        """Places that a pass can look at; MPT asks for it, as of transformers' caches."""
        return self.longest

    def rows(self, layer: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of some rows up to the longest one, ``(R, key-value heads, longest, D)``."""
        known = self._stored[layer][:, :, :, : self.longest].index_select(0, rows)
        return known[:, :, 0], known[:, :, 1]

    def row(self, layer: int, span: Span) -> tuple[Tensor, Tensor]:
        """Return keys and values of one row up to the end of a span, ``(1, key-value heads, end, D)``."""
        known = self._stored[layer][span.slot : span.slot + 1, :, :, : span.end]
        return known[:, :, 0], known[:, :, 1]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first ``tokens`` of one slot into another."""
        for stored in self._stored:
            stored[target, :, :, :tokens] = stored[source, :, :, :tokens]

    def _room(self, like: Tensor, heads: int, layer: int) -> Tensor:
        """Make room in a layer; zeros, because what is masked is multiplied by 0, and NaN would stay."""
        assert layer <= len(self._stored), "layers come in order"
        if layer == len(self._stored):
            self._stored.append(like.new_zeros(self.slots, heads, 2, self._capacity(), like.shape[-1]))
        old = self._stored[layer]
        if old.shape[3] < self.longest:
            grown = old.new_zeros(*old.shape[:3], self._capacity(), old.shape[4])
            grown[:, :, :, : old.shape[3]] = old
            self._stored[layer] = grown
        return self._stored[layer]

    def _capacity(self) -> int:
        return -(-self.longest // GROWTH_TOKENS) * GROWTH_TOKENS
