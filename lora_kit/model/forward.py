"""From a micro-batch to nats: the one path of training, validation and likelihood evaluation.

The decoder runs below its head, the head only at the positions that predict a target. Works on a plain model
and on a PeftModel alike, because peft changes the layers in place.
"""

from typing import NamedTuple, Protocol

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_kit.model import fused_llama
from lora_kit.model.attention import segment_arguments
from lora_kit.model.loss import sum_of_nats, target_nats


class TokenBatch(Protocol):
    """Examples as tensors; data.collate makes them."""

    @property
    def input_ids(self) -> Tensor:
        """Int64 ``(B, T)``; B = 1 when the examples are laid end to end."""

    @property
    def position_ids(self) -> Tensor:
        """Int64 ``(B, T)``, from 0 in each example."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each of the E examples, in order."""

    @property
    def segments(self) -> tuple[int, ...]:
        """Tokens of each segment of the long row; empty when padded."""

    @property
    def parents(self) -> tuple[int, ...]:
        """The earlier segment that each segment continues, -1 for none."""

    @property
    def attention_mask(self) -> Tensor | None:
        """Int64 ``(B, T)``, 1 = real; None when the examples are laid end to end."""

    @property
    def predict_at(self) -> Tensor:
        """Int64 ``(N,)``, index into the B x T positions of the state that predicts a target."""

    @property
    def targets(self) -> Tensor:
        """Int64 ``(N,)``."""

    @property
    def owner(self) -> Tensor:
        """Int64 ``(N,)``, which of the E examples a target belongs to."""


class LossSum(NamedTuple):
    """Negative log-likelihood summed over the tokens that are trained on.

    Args:
        nats: Float64 scalar, natural log, differentiable.
        tokens: How many targets were summed.
    """

    nats: Tensor
    tokens: int


def sum_nats(model: PreTrainedModel | PeftModel, batch: TokenBatch) -> LossSum:
    """Sum the nats of all targets in a micro-batch; (0, 0) without targets."""
    hidden, head = _states(model, batch)
    return LossSum(sum_of_nats(hidden, head, batch.targets), len(batch.targets))


@torch.no_grad()
def example_nats(model: PreTrainedModel | PeftModel, batch: TokenBatch) -> Tensor:
    """Return each example's nats, float64 ``(E,)``, without gradient; the model's mode decides on dropout."""
    hidden, head = _states(model, batch)
    nats = target_nats(hidden, head.weight, head.bias, batch.targets)
    return nats.new_zeros(len(batch.lengths)).index_add_(0, batch.owner, nats)


def _states(model: PreTrainedModel | PeftModel, batch: TokenBatch) -> tuple[Tensor, nn.Linear]:
    """Return the states that predict the targets, (N, H), and the head."""
    base: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
    if batch.attention_mask is None:
        who_sees_whom = segment_arguments(batch.segments, batch.input_ids.device, batch.parents)
    else:
        who_sees_whom = {"attention_mask": batch.attention_mask}
    if batch.attention_mask is None and fused_llama.fits(base):
        hidden = fused_llama.states(
            base.model, batch.input_ids, batch.position_ids, batch.predict_at, who_sees_whom
        )
        return hidden, base.get_output_embeddings()
    output = base.base_model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **who_sees_whom
    )
    hidden = output.last_hidden_state.flatten(0, 1).index_select(0, batch.predict_at)
    return hidden, base.get_output_embeddings()
