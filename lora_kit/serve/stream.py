"""An answer, token by token, as ``generate()`` would give it, but shown while it grows.

The prompt comes from the encoder of the training, so that chat speaks the very template
that the adapter was trained with; and the answer ends at the same stop ids.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from lora_kit.data.encode import Encoder
from lora_kit.data.types import Message
from lora_kit.errors import DataError, ModelError
from lora_kit.serve.memory import Memory
from lora_kit.serve.pieces import TextPieces

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
        pieces = TextPieces(self.encoder)
        for token in self._tokens():
            if piece := pieces.add(token):
                yield piece
        if rest := pieces.finish():
            yield rest

    def _tokens(self) -> Iterator[int]:
        """Tokens up to a stop id or the limit; each is computed when it is asked for."""
        cache, known = self.memory.take(self.prompt, self.model.config)
        new = self.prompt[known:]
        random = torch.Generator().manual_seed(self.sampling.seed)
        for _ in range(_room(self.model, self.prompt, self.sampling.max_new_tokens)):
            token = choose(_next_scores(self.model, new, cache), self.sampling, random)
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
    if _room(model, prompt, 1) < 1:
        found = f"the conversation has {len(prompt):,} tokens, and the model reads {context_tokens(model):,}"
        raise DataError(found, cure="shorten it")
    return AnswerStream(model, encoder, prompt, sampling, memory or Memory())


def context_tokens(model: LanguageModel) -> int | None:
    """Most tokens that the model has positions for; None where there is no limit (ALiBi)."""
    limit: int | None = getattr(model.config, "max_position_embeddings", None)
    return limit


def choose(scores: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """Choose a token.

    Args:
        scores: Float32 ``(V,)``, on the CPU.
        sampling: How.
        random: Where randomness comes from; not touched at temperature 0.

    Raises:
        ModelError: A score is NaN or infinite.
    """
    if not torch.isfinite(scores).all():
        raise ModelError(
            "the model's scores for the next token are not finite",
            cure="its weights may hold NaN or infinity",
        )
    if sampling.temperature == 0.0:
        return int(scores.argmax())
    # The largest score becomes 0, so that a tiny temperature can't overflow.
    probabilities = torch.softmax((scores.double() - scores.max()) / sampling.temperature, dim=0)
    ordered, tokens = probabilities.sort(descending=True, stable=True)
    before = ordered.cumsum(0) - ordered
    nucleus = ordered.masked_fill(before >= sampling.top_p, 0.0)
    nucleus[0] = ordered[0]
    return int(tokens[torch.multinomial(nucleus, 1, generator=random)])


# Not around the loop: between two pieces the caller runs, and would find gradients switched off.
@torch.no_grad()
def _next_scores(model: LanguageModel, new: Sequence[int], cache: DynamicCache) -> Tensor:
    """Scores (V,) of the token after ``new``, which the cache takes in; float32, CPU."""
    ids = torch.tensor([list(new)], device=model.device)
    # The configs of lora_kit say use_cache=False, for training; hence it is asked for.
    output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    scores: Tensor = output.logits[0, -1].float().cpu()
    return scores


def _room(model: LanguageModel, prompt: Sequence[int], wanted: int) -> int:
    limit = context_tokens(model)
    return wanted if limit is None else min(wanted, limit - len(prompt))
