"""Examples -> one micro-batch of tensors.

Two layouts carry the same mathematics: ``flatten`` lays the examples end to end without padding,
``pad`` gives each a row. Targets are picked by position and length, never by token id, so a padding
id that equals EOS can mask nothing (transformers' DataCollatorForLanguageModeling masks every EOS that way).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lora_kit.data.types import Example


@dataclass(frozen=True)
class MicroBatch:
    """What is computed together; E examples, N trained tokens.

    Args:
        input_ids: Int64 ``(B, T)``; B = 1 when flattened, else E.
        position_ids: Int64 ``(B, T)``, from 0 in each example.
        lengths: Tokens of each example, in order.
        attention_mask: Int64 ``(B, T)``, 1 = real token; None when flattened.
        predict_at: Int64 ``(N,)``, index into the B*T positions of the state that predicts target n.
        targets: Int64 ``(N,)``, token ids.
        owner: Int64 ``(N,)``, which example target n belongs to.
        origins: ``file:row`` of each example.
    """

    input_ids: Tensor
    position_ids: Tensor
    lengths: tuple[int, ...]
    attention_mask: Tensor | None
    predict_at: Tensor
    targets: Tensor
    owner: Tensor
    origins: tuple[str, ...]

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
    positions = np.concatenate([np.arange(length) for length in lengths])
    ids = np.concatenate([example.input_ids for example in examples])
    return _micro_batch(examples, starts, ids[None], positions[None], attention_mask=None)


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
    starts = np.arange(len(examples)) * width
    return _micro_batch(examples, starts, ids, positions, attention_mask=torch.from_numpy(mask))


def _micro_batch(
    examples: Sequence[Example],
    starts: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]",
    ids: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]",
    positions: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]",
    *,
    attention_mask: Tensor | None,
) -> MicroBatch:
    """Pick the targets: token t of an example is predicted by the state at t - 1, so t >= 1."""
    trained = [np.flatnonzero(example.trained[1:]) for example in examples]
    predict_at = np.concatenate([start + hits for start, hits in zip(starts, trained, strict=True)])
    return MicroBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        lengths=tuple(len(example.input_ids) for example in examples),
        attention_mask=attention_mask,
        predict_at=torch.from_numpy(predict_at),
        targets=torch.from_numpy(ids.reshape(-1)[predict_at + 1]),
        owner=torch.from_numpy(np.repeat(np.arange(len(examples)), [len(hits) for hits in trained])),
        origins=tuple(example.origin for example in examples),
    )
