"""Looking at a conversation before it costs a token, and keeping what was found.

Problems of all rows are collected and raised once, so that a user mends them in
one go; a long list is cut with its rest counted.
"""

import hashlib
import unicodedata
from collections.abc import Iterable

from lora_kit.data.types import Conversation
from lora_kit.errors import DataError, Problem

SHOWN_PROBLEMS = 20
_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})


def is_blank(text: str) -> bool:
    r"""Say whether nothing of a text can be seen: empty, white space, zero-width or control characters.

    Example:
        >>> is_blank(" \u200b\ufeff"), is_blank("0")
        (True, False)
    """
    if text[:1].isalnum():
        return False
    return all(unicodedata.category(character) in _INVISIBLE for character in text)


def blank_answer(conversation: Conversation) -> int | None:
    """Return the index of the first answer that would be learned and is blank."""
    for index, message in enumerate(conversation.messages):
        if message.role == "assistant" and message.train and is_blank(message.content):
            return index
    return None


def has_blank_question(conversation: Conversation) -> bool:
    """Say whether a user turn has neither a visible question nor a visible context."""
    for message in conversation.messages:
        if message.role == "user" and is_blank(message.content) and is_blank(message.context):
            return True
    return False


def has_nul(conversation: Conversation) -> bool:
    """Say whether a NUL character is in a turn; it is kept."""
    return any("\0" in message.content or "\0" in message.context for message in conversation.messages)


def said_digest(conversation: Conversation) -> bytes:
    """Return 16 bytes that say what is said, to the character; blind to what of it is learned."""
    digest = hashlib.blake2b(digest_size=16)
    for message in conversation.messages:
        content = message.content.encode("utf-8", "surrogatepass")
        context = message.context.encode("utf-8", "surrogatepass")
        digest.update(b"%s %d %d\n" % (message.role.encode(), len(content), len(context)))
        digest.update(content)
        digest.update(context)
    return digest.digest()


class Problems:
    """The first problems in full, the rest as a number."""

    def __init__(self) -> None:
        self.shown: list[Problem] = []
        self.count = 0

    def add(self, problems: Iterable[Problem]) -> None:
        """Keep problems while there is room; count them all."""
        for problem in problems:
            self.count += 1
            if len(self.shown) < SHOWN_PROBLEMS:
                self.shown.append(problem)

    def raise_if_any(self) -> None:
        """Raise what was found.

        Raises:
            DataError: With the problems shown and, if there are more, how many.
        """
        rest = self.count - len(self.shown)
        if self.shown:
            raise DataError.collect([*self.shown, Problem(f"... and {rest:,} more")] if rest else self.shown)
