"""Keys and values of many rows, in slots that a row keeps until it is finished and another row takes over.

transformers' cache concatenates, which copies everything that is known once a token and once a layer, and
holds a batch to one length by padding. Here room is made ahead, each row has its own length, and a prompt's
beginning that all rows share is computed once and copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

GROWTH_TOKENS = 64


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


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values, ``(slots, key-value heads, capacity, D)`` for each layer.

    A forward pass is either a ``read`` of spans laid end to end, or a ``step`` of one token for each of the
    first B slots. Whoever runs it announces it first; then each layer calls :meth:`update`.

    Args:
        slots: How many rows there can be at once.
        spans: What the present pass computes; empty in a step.
        lengths: Tokens known of each row of a step, int64 ``(B,)``, before the step.
        longest: Most tokens that any row has after the pass.
    """

    slots: int
    spans: Sequence[Span] = ()
    lengths: Tensor | None = None
    longest: int = 0
    _keys: list[Tensor] = field(default_factory=list)
    _values: list[Tensor] = field(default_factory=list)
    _rows: Tensor | None = None

    def announce_read(self, spans: Sequence[Span]) -> None:
        """Say that the next pass reads spans laid end to end."""
        self.spans, self.lengths = spans, None
        self.longest = max(span.end for span in spans)

    def announce_step(self, lengths: Sequence[int], device: torch.device) -> None:
        """Say that the next pass computes one token for each of the first B rows."""
        self.spans, self.lengths = (), torch.tensor(lengths, device=device)
        self._rows = torch.arange(len(lengths), device=device)
        self.longest = max(lengths) + 1

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Take in a layer's new keys and values.

        Args:
            key: Float ``(1, key-value heads, T, D)`` in a read, ``(B, key-value heads, 1, D)`` in a step.
            value: Like ``key``.
            layer: Number of the layer.

        Returns:
            What the new tokens may look at: the first B rows up to the longest one, or the row of a single
            span. With several spans, use :meth:`row`.
        """
        keys, values = self._room(key, value, layer)
        if self.lengths is not None:
            rows = len(self.lengths)
            keys[self._rows, :, self.lengths] = key[:, :, 0]
            values[self._rows, :, self.lengths] = value[:, :, 0]
            return keys[:rows, :, : self.longest], values[:rows, :, : self.longest]
        at = 0
        for span in self.spans:
            keys[span.slot, :, span.start : span.end] = key[0, :, at : at + span.tokens]
            values[span.slot, :, span.start : span.end] = value[0, :, at : at + span.tokens]
            at += span.tokens
        return self.row(layer, self.spans[0])

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
