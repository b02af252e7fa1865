"""An answer, token by token, as ``generate()`` would give it, but shown while it grows.

The prompt comes from the encoder of the training, so that chat speaks the very template
that the adapter was trained with; and the answer ends at the same stop ids.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from lora_kit.data.encode import Encoder
from lora_kit.data.types import Message
from lora_kit.errors import DataError
from lora_kit.model.choose import Choice, sample
from lora_kit.model.context import context_tokens, room
from lora_kit.model.decode import quick_products, read
from lora_kit.model.kv_cache import KeyValueCache, Span
from lora_kit.serve.memory import Memory
from lora_kit.serve.pieces import pieces_of

LanguageModel: TypeAlias = PreTrainedModel | PeftModel


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Args:
        max_new_tokens: Longest answer.
        temperature: 0 always takes the likeliest token; above, the scores are divided by it.
        top_p: Sample from the likeliest tokens that make up this share (arXiv 1904.09751); 1 for all.
        seed: Of the samples; the same seed gives the same answer.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(slots=True)
class AnswerStream:
    """An answer that is being written; iterating over it gives its text pieces.

    Args:
        model: In evaluation mode; whether its adapter is on is the caller's matter.
        encoder: Text to ids, as in training.
        prompt: Ids up to the point where the model speaks.
        sampling: How tokens are chosen.
        memory: What earlier turns left, and later turns reuse.
        ids: Tokens of the answer so far, the stop token included.
    """

    model: LanguageModel
    encoder: Encoder
    prompt: Sequence[int]
    sampling: Sampling
    memory: Memory
    ids: list[int] = field(default_factory=list)

    @property
    def stopped(self) -> bool:
        """Whether the model ended its answer by itself."""
        return bool(self.ids) and self.ids[-1] in self.encoder.stop_ids

    def __iter__(self) -> Iterator[str]:
        return pieces_of(self.encoder, self._tokens())

    def _tokens(self) -> Iterator[int]:
        """Tokens up to a stop id or the limit; each is computed when it is asked for."""
        cache, known = self.memory.take(self.prompt)
        new = self.prompt[known:]
        random = torch.Generator().manual_seed(self.sampling.seed)
        choice = Choice(self.sampling.temperature, self.sampling.top_p, seed=self.sampling.seed)
        for _ in range(room(self.model.config, len(self.prompt), self.sampling.max_new_tokens)):
            token = sample(_next_scores(self.model, cache, new, known), choice, random)
            known += len(new)
            self.ids.append(token)
            yield token
            if self.stopped:
                break
            new = [token]
        # The last token was never computed, so it is not in the cache.
        self.memory.put([*self.prompt, *self.ids[:-1]], cache)


def stream_answer(
    model: LanguageModel,
    encoder: Encoder,
    messages: Sequence[Message],
    sampling: Sampling,
    *,
    memory: Memory | None = None,
) -> AnswerStream:
    """Answer a conversation, piece by piece.

    Args:
        model: A causal language model in evaluation mode, with or without an adapter.
        encoder: The encoder of its training.
        messages: The last one is the user's.
        sampling: Limit and choice of tokens.
        memory: The memory of this conversation with this model; None for a single answer.

    Returns:
        Text pieces, computed as they are asked for. All pieces together are the answer without its end mark.

    Raises:
        DataError: Turns are out of order, or there is no room for an answer.
        ModelError: While iterating: the model's scores are not finite.
    """
    assert not model.training, "dropout would change the answers"
    prompt = encoder.encode_prompt(messages)
    if room(model.config, len(prompt), 1) < 1:
        limit = context_tokens(model.config)
        found = f"the conversation has {len(prompt):,} tokens, and the model reads {limit:,}"
        raise DataError(found, cure="shorten it")
    return AnswerStream(model, encoder, prompt, sampling, memory or Memory())


# Not around the loop: between two pieces the caller runs, and would find gradients switched off.
@torch.no_grad()
def _next_scores(model: LanguageModel, cache: KeyValueCache, new: Sequence[int], known: int) -> Tensor:
    """Scores (V,) of the token after ``new``, which the cache takes in behind ``known``; float32, CPU."""
    with quick_products(model) if len(new) > 1 else nullcontext():
        scores = read(model, cache, [new], [Span(0, known, len(new))])
    return scores[0].float().cpu()
