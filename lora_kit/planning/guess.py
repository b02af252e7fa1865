"""Lengths of rows without a tokenizer, from their bytes: a guess, and the plan calls it one.

Byte-level vocabularies of 32,000 to 50,000 tokens write English prose in about four characters a token, code
and other languages in fewer, which counting bytes allows for in part.
"""

import hashlib
from collections.abc import Sequence
from math import ceil

from lora_kit.data.encode import content_hash
from lora_kit.data.types import Conversation, Example
from lora_kit.errors import Problem

BYTES_A_TOKEN = 4.0
TURN = 5  # tokens that a template puts around a turn


class Guess:
    """An encoder that knows how long a conversation may be, and nothing of what it says.

    Args:
        system: The system prompt of conversations that have none.
    """

    def __init__(self, system: str | None) -> None:
        self.system = system or ""

    @property
    def fingerprint(self) -> str:
        """Of this way to guess and its system prompt."""
        return hashlib.sha256(f"lora_kit guess 1 {BYTES_A_TOKEN} {TURN} {self.system}".encode()).hexdigest()

    def try_encode_many(self, conversations: Sequence[Conversation]) -> list[Example | Problem]:
        """One example for each, never a problem."""
        return [self._example(one) for one in conversations]

    def _example(self, conversation: Conversation) -> Example:
        own = conversation.messages[0].role == "system"
        flags = [False] * (0 if own or not self.system else _tokens(self.system))
        for message in conversation.messages:
            learned = message.role == "assistant" and message.train
            flags += [learned] * _tokens(message.content + message.context)
        return Example((0,) * len(flags), tuple(flags), conversation.origin, content_hash(conversation))


def _tokens(text: str) -> int:
    return TURN + ceil(len(text.encode("utf-8", "surrogatepass")) / BYTES_A_TOKEN)
