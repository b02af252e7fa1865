"""Examples -> one micro-batch of tensors.

Three layouts carry the same mathematics: ``flatten`` lays the examples end to end without padding,
``share`` does so with common beginnings once, ``pad`` gives each a row.
Targets are picked by position and length, never by token id, so a padding
id that equals EOS can mask nothing (transformers' DataCollatorForLanguageModeling masks every EOS that way).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lora_kit.data.prefix_trie import Indices, Prefixes
from lora_kit.data.types import Example


@dataclass(frozen=True)
class MicroBatch:
    """What is computed together; E examples, N trained tokens.

    Args:
        input_ids: Int64 ``(B, T)``; B = 1 when flattened or shared, else E.
        position_ids: Int64 ``(B, T)``, from 0 in each example.
        lengths: Tokens of each example, in order.
        attention_mask: Int64 ``(B, T)``, 1 = real token; None when flattened.
        predict_at: Int64 ``(N,)``, index into the B*T positions of the state that predicts target n.
        targets: Int64 ``(N,)``, token ids.
        owner: Int64 ``(N,)``, which example target n belongs to.
        origins: ``file:row`` of each example.
        segments: Tokens of each segment of the long row; empty when padded.
        parents: The segment that each segment continues (it sees that one's tokens and its ancestors'); -1
            for none.
    """

    input_ids: Tensor
    position_ids: Tensor
    lengths: tuple[int, ...]
    attention_mask: Tensor | None
    predict_at: Tensor
    targets: Tensor
    owner: Tensor
    origins: tuple[str, ...]
    segments: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()

    @property
    def shared_tokens(self) -> int:
        """Tokens that are computed with another example's."""
        return sum(self.lengths) - sum(self.segments) if self.segments else 0

    def to(self, device: torch.device | str) -> "MicroBatch":
        """Return the same micro-batch on a device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            attention_mask=None if self.attention_mask is None else self.attention_mask.to(device),
            predict_at=self.predict_at.to(device),
            targets=self.targets.to(device),
            owner=self.owner.to(device),
        )


def flatten(examples: Sequence[Example]) -> MicroBatch:
    """Lay examples end to end in one row; attention is kept apart by ``lengths``.

    Args:
        examples: At least one, each with at least one token.
    """
    lengths = [len(example.input_ids) for example in examples]
    starts = np.cumsum([0, *lengths[:-1]])
    places = [start + np.arange(length) for start, length in zip(starts, lengths, strict=True)]
    positions = np.concatenate([np.arange(length) for length in lengths])
    ids = np.concatenate([example.input_ids for example in examples])
    batch = _micro_batch(examples, places, ids[None], positions[None], attention_mask=None)
    return replace(batch, segments=tuple(lengths), parents=(-1,) * len(lengths))


def share(examples: Sequence[Example]) -> MicroBatch:
    """Lay examples end to end with common beginnings once; a state there predicts targets of many examples.

    Args:
        examples: At least one, each with at least one token.
    """
    trie = Prefixes([example.input_ids for example in examples]).trie(range(len(examples)))
    if len(trie.segments) == len(examples) and max(trie.parents) < 0:
        return flatten(examples)
    parts = [examples[row].input_ids[start:stop] for row, start, stop, _ in trie.segments]
    positions = np.concatenate([np.arange(start, stop) for _, start, stop, _ in trie.segments])
    places = [trie.places(row) for row in range(len(examples))]
    batch = _micro_batch(examples, places, np.concatenate(parts)[None], positions[None], attention_mask=None)
    return replace(batch, segments=trie.lengths, parents=trie.parents)


def pad(examples: Sequence[Example], pad_id: int = 0) -> MicroBatch:
    """Give each example a row, padded on the right to the longest.

    Args:
        examples: At least one, each with at least one token.
        pad_id: Any id of the vocabulary; it is never attended to and never a target.
    """
    lengths = [len(example.input_ids) for example in examples]
    width = max(lengths)
    ids = np.full((len(examples), width), pad_id)
    mask = np.zeros_like(ids)
    for row, example in enumerate(examples):
        ids[row, : lengths[row]] = example.input_ids
        mask[row, : lengths[row]] = 1
    positions = np.arange(width)[None] * mask
    places = [row * width + np.arange(length) for row, length in enumerate(lengths)]
    return _micro_batch(examples, places, ids, positions, attention_mask=torch.from_numpy(mask))


def _micro_batch(
    examples: Sequence[Example],
    places: Sequence[Indices],
    ids: Indices,
    positions: Indices,
    *,
    attention_mask: Tensor | None,
) -> MicroBatch:
    """Pick the targets: token t of an example is predicted by the state at t - 1, so t >= 1."""
    trained = [np.flatnonzero(example.trained[1:]) for example in examples]
    chosen = list(zip(places, trained, strict=True))
    targets = np.concatenate([place[hits + 1] for place, hits in chosen])
    return MicroBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        lengths=tuple(len(example.input_ids) for example in examples),
        attention_mask=attention_mask,
        predict_at=torch.from_numpy(np.concatenate([place[hits] for place, hits in chosen])),
        targets=torch.from_numpy(ids.reshape(-1)[targets]),
        owner=torch.from_numpy(np.repeat(np.arange(len(examples)), [len(hits) for hits in trained])),
        origins=tuple(example.origin for example in examples),
    )
