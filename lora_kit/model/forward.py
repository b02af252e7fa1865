"""From a micro-batch to nats: the one path of training, validation and likelihood evaluation.

The decoder runs below its head, the head only at the positions that predict a target. Works on a plain model
and on a PeftModel alike, because peft changes the layers in place.
"""

from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_kit.model import fused_llama
from lora_kit.model.attention import segment_arguments
from lora_kit.model.bare import bare_model
from lora_kit.model.batch import TokenBatch
from lora_kit.model.engine import running
from lora_kit.model.loss import sum_of_nats, target_nats
from lora_kit.model.token_rows import with_rows
from lora_kit.model.trunk import Entering, started_at


class LossSum(NamedTuple):
    """Negative log-likelihood summed over the tokens that are trained on.

    Args:
        nats: Float64 scalar, natural log, differentiable.
        tokens: How many targets were summed.
        of_examples: Float64 ``(E,)``, each example's part, without gradient.
    """

    nats: Tensor
    tokens: int
    of_examples: Tensor


def sum_nats(model: PreTrainedModel | PeftModel, batch: TokenBatch) -> LossSum:
    """Sum the nats of all targets in a micro-batch; (0, 0) without targets."""
    hidden, head = _states(model, batch)
    nats, each = sum_of_nats(hidden, head, batch.targets)
    nats = with_rows(nats, each, hidden, head, batch.targets)
    return LossSum(nats, len(batch.targets), _by_example(each, batch))


@torch.no_grad()
def example_nats(model: PreTrainedModel | PeftModel, batch: TokenBatch) -> Tensor:
    """Return each example's nats, float64 ``(E,)``, without gradient; the model's mode decides on dropout."""
    hidden, head = _states(model, batch)
    return _by_example(target_nats(hidden, head.weight, head.bias, batch.targets), batch)


def _by_example(each: Tensor, batch: TokenBatch) -> Tensor:
    """Sum what targets have, (N,), over each example, (E,)."""
    return each.new_zeros(len(batch.lengths)).index_add_(0, batch.owner, each)


def _states(model: PreTrainedModel | PeftModel, batch: TokenBatch) -> tuple[Tensor, nn.Linear]:
    """Return the states that predict the targets, (N, H), and the head."""
    base = bare_model(model)
    with running(base) as engine:
        entering = engine.trunk.entering(batch) if engine.trunk else None
        return _decoded(base, batch, entering), base.get_output_embeddings()


def _decoded(base: PreTrainedModel, batch: TokenBatch, entering: Entering | None) -> Tensor:
    if batch.attention_mask is None:
        who_sees_whom = segment_arguments(batch.segments, batch.input_ids.device, batch.parents)
    else:
        who_sees_whom = {"attention_mask": batch.attention_mask}
    if batch.attention_mask is None and fused_llama.fits(base):
        ids, positions = batch.input_ids, batch.position_ids
        start = (
            fused_llama.Start(entering.states[0], entering.depth)
            if entering
            else fused_llama.embedded(base.model, ids)
        )
        return fused_llama.states(base.model, start, positions, batch.predict_at, who_sees_whom)
    with started_at(base, entering):
        output = base.base_model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **who_sees_whom
        )
    hidden: Tensor = output.last_hidden_state.flatten(0, 1).index_select(0, batch.predict_at)
    return hidden
