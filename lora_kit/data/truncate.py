"""Making an overlong example fit without touching what it teaches.

Characters are cut from the start of the first user turn: first of its context,
then of its question, of which at least one character stays. Every other turn,
all control tokens, the answers and their end marks stay whole, because the
shortened conversation is encoded anew. Never more is cut than needed.
"""

from collections.abc import Callable
from dataclasses import replace

from lora_kit.data.types import Conversation, Example


def cut_prompt(
    conversation: Conversation, encode: Callable[[Conversation], Example], max_tokens: int
) -> Example | None:
    """Encode a conversation with as much of its first prompt as fits; None if even one character is too much.

    Args:
        conversation: Too long as it is.
        encode: The run's encoder.
        max_tokens: Longest example allowed, in tokens.
    """
    place = next((at for at, message in enumerate(conversation.messages) if message.role == "user"), None)
    if place is None:
        return None
    prompt = conversation.messages[place]
    too_few, enough = 0, max(len(prompt.context) + len(prompt.content) - 1, 0)
    best = encode(_without(conversation, place, enough))
    if len(best.input_ids) > max_tokens:
        return None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        example = encode(_without(conversation, place, middle))
        if len(example.input_ids) <= max_tokens:
            best, enough = example, middle
        else:
            too_few = middle
    return best


def _without(conversation: Conversation, place: int, count: int) -> Conversation:
    """Return the conversation without the first `count` characters of the prompt at `place`."""
    prompt = conversation.messages[place]
    content = prompt.content[max(count - len(prompt.context), 0) :]
    shorter = replace(prompt, context=prompt.context[count:], content=content)
    messages = (*conversation.messages[:place], shorter, *conversation.messages[place + 1 :])
    return replace(conversation, messages=messages)
