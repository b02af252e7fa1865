"""An answer of a GGUF file, token by token, through llama.cpp; the ids are those of our own encoder.

What a conversation shares with its last turn is computed once: llama-cpp-python keeps the longest common
beginning by itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from lora_kit.data.types import Message
from lora_kit.errors import DataError
from lora_kit.harness.engines.llama_cpp_engine import LlamaCppEngine
from lora_kit.serve.pieces import pieces_of
from lora_kit.serve.stream import Sampling


@dataclass(slots=True)
class GgufStream:
    """An answer that is being written; iterating over it gives its text pieces, as ``AnswerStream`` does.

    Args:
        engine: The open file.
        prompt: Ids up to the point where the model speaks; they leave room for an answer.
        sampling: Limit and choice of tokens.
        ids: Tokens of the answer so far, the stop token included.
    """

    engine: LlamaCppEngine
    prompt: Sequence[int]
    sampling: Sampling
    ids: list[int] = field(default_factory=list)

    @property
    def stopped(self) -> bool:
        """Whether the model ended its answer by itself."""
        return bool(self.ids) and self.ids[-1] in self.engine.encoder.stop_ids

    def __iter__(self) -> Iterator[str]:
        return pieces_of(self.engine.encoder, self._tokens())

    def _tokens(self) -> Iterator[int]:
        chosen = self.sampling
        limit = min(chosen.max_new_tokens, self.engine.context_tokens - len(self.prompt))
        tokens = self.engine.tokens(self.prompt, chosen.temperature, chosen.top_p, chosen.seed)
        with closing(tokens):
            for token in tokens:
                self.ids.append(token)
                yield token
                if self.stopped or len(self.ids) == limit:  # before the next one is computed
                    break


def stream_gguf(engine: LlamaCppEngine, messages: Sequence[Message], sampling: Sampling) -> GgufStream:
    """Answer a conversation, piece by piece; arguments and result as of ``stream_answer``.

    Raises:
        DataError: Turns are out of order, or there is no room for an answer.
    """
    prompt = engine.encoder.encode_prompt(messages)
    limit = engine.context_tokens
    if len(prompt) >= limit:
        found = f"the conversation has {len(prompt):,} tokens, and the file is read with {limit:,}"
        raise DataError(found, cure="shorten it")
    return GgufStream(engine, prompt, sampling)
