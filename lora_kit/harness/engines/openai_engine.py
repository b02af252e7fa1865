"""A model behind an OpenAI-compatible chat endpoint: ChatGPT, vLLM, Ollama, a llama.cpp server.

It is known by its address and its name alone: what a server changes behind a name, no
fingerprint here can see. Greedy as far as a server can be told to be; no likelihoods.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from lora_kit.data.types import Conversation, Message
from lora_kit.errors import IncompleteError, Problem
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.client import ChatClient, ChatFailureError
from lora_kit.harness.engine import EngineKind, Generation, Likelihood
from lora_kit.harness.fan_out import ask_all

SHOWN_PROBLEMS = 20


class OpenAIEngine:
    """Answers from a chat server.

    Args:
        name: What to call it in a table.
        client: How to reach it.
        model: As the server calls it.
        extra: More fields of each request; a field that is None is left out.
    """

    measures_likelihood = False

    def __init__(
        self, name: str, client: ChatClient, model: str, *, extra: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self._client = client
        self._model = model
        self._extra = dict(extra or {})

    @property
    def fingerprint(self) -> str:
        """Hash of the host, the model's name and the extra fields."""
        parts = ["openai-1", self._client.endpoint.host, self._model, self._extra]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("ascii")).hexdigest()

    def generate(
        self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[tuple[int, Generation]]:
        """Ask for all answers, ``batch_size`` at once; those that come are yielded before anything is raised.

        Raises:
            IncompleteError: Some prompts got no answer.
        """
        bodies = [self._body(prompt, max_new_tokens) for prompt in prompts]
        problems = []
        with closing(ask_all(self._client, bodies, parallel=batch_size)) as replies:
            for index, found in replies:
                reason = _why_missing(found)
                if isinstance(found, ChatReply) and not reason:
                    tokens = found.completion_tokens or 0  # 0: the server does not count
                    yield index, Generation(found.text, tokens, stopped=found.finish == "stop")
                else:
                    problems.append(Problem(f"{self.name} gave no answer: {reason}", f"prompt {index + 1}"))
        if problems:
            cure = Problem("run it again: only the missing answers are asked for")
            raise IncompleteError.collect([*problems[:SHOWN_PROBLEMS], cure])

    def likelihood(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, Likelihood]]:
        """A chat server does not say how probable a given answer is.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{self.name} is a chat server")

    def _body(self, prompt: Sequence[Message], limit: int) -> dict[str, Any]:
        body = {
            "model": self._model,
            "messages": [{"role": turn.role, "content": _content(turn)} for turn in prompt],
            "temperature": 0.0,
            "max_tokens": limit,
            **self._extra,
        }
        return {name: value for name, value in body.items() if value is not None}


def _why_missing(found: ChatReply | ChatFailureError) -> str:
    """Why this is no answer; empty if it is one, be it an empty one."""
    if isinstance(found, ChatFailureError):
        return found.reason
    return "" if found.text or found.finish in {"stop", "length"} else f"it ended with '{found.finish}'"


def _content(turn: Message) -> str:
    return f"{turn.content}\n\n{turn.context}" if turn.context else turn.content


ENGINE = EngineKind("openai", "answers from an OpenAI-compatible chat endpoint", OpenAIEngine)
