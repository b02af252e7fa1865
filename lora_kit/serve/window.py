"""Keeps a conversation inside the model's context: the oldest question and answer go first."""

from collections.abc import Sequence

from lora_kit.data.encode import Encoder
from lora_kit.data.types import Message

ANSWER_SHARE = 4  # at least a quarter of the context is kept free for a long answer


def fit_window(
    encoder: Encoder, messages: Sequence[Message], *, context_tokens: int | None, max_new_tokens: int
) -> list[Message]:
    """Leave out the oldest pairs until the prompt and an answer fit.

    Args:
        encoder: Counts the tokens.
        messages: An optional system turn, then user and assistant in turn; the last is the user's.
        context_tokens: What the model reads; None for no limit.
        max_new_tokens: Longest answer; up to a quarter of the context is kept free for it.

    Returns:
        The same messages, or fewer; system turn and last question always stay, even if they are too long.

    Raises:
        DataError: Turns are out of order.
    """
    system = [message for message in messages[:1] if message.role == "system"]
    turns = list(messages[len(system) :])
    if context_tokens is None:
        return system + turns
    most = context_tokens - min(max_new_tokens, context_tokens // ANSWER_SHARE)
    while len(turns) > 2 and len(encoder.encode_prompt(system + turns)) > most:
        del turns[:2]
    return system + turns
