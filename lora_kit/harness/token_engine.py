"""What engines share that read and write token ids: room for a prompt, the end of an answer, its size."""

from collections.abc import Sequence

from lora_kit.data.encode import Encoder
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import DataError, Problem
from lora_kit.harness.engine import Generation

SHOWN_PROBLEMS = 20


def check_room(name: str, context: int | None, sizes: Sequence[tuple[int, str]]) -> None:
    """Check that all fit.

    Args:
        name: Of the model.
        context: Most tokens that it reads and writes together; None for no limit.
        sizes: ``(tokens needed, where from)``.

    Raises:
        DataError: Some don't; each is named.
    """
    problems = [
        Problem(f"needs {tokens} tokens, {name} reads {context}", where, cure="shorten it")
        for tokens, where in sizes
        if context is not None and tokens > context
    ]
    if problems:
        raise DataError.collect(problems[:SHOWN_PROBLEMS])


def prompt_rows(
    name: str, context: int, encoder: Encoder, prompts: Sequence[Sequence[Message]]
) -> list[list[int]]:
    """Encode prompts, each of which must leave room for one token; arguments as for :func:`check_room`.

    Raises:
        DataError: Some don't; each is named by its number.
    """
    rows = encoder.encode_prompts(prompts)
    check_room(name, context, [(len(row) + 1, f"prompt {number}") for number, row in enumerate(rows, 1)])
    return rows


def cut_answer(encoder: Encoder, ids: Sequence[int]) -> Generation:
    """The text in front of the first stop id; a stop id counts as a token of the answer."""
    end = next((at for at, token in enumerate(ids) if token in encoder.stop_ids), None)
    tokens = len(ids) if end is None else end + 1
    return Generation(encoder.decode_answer(list(ids[:end])), tokens, stopped=end is not None)


def answer_bytes(conversation: Conversation) -> int:
    """UTF-8 bytes of the answers that are measured."""
    answers = (m.content for m in conversation.messages if m.role == "assistant" and m.train)
    return sum(len(answer.encode("utf-8")) for answer in answers)
