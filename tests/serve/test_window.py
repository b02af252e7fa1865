"""The oldest pairs go first, and only as many as must."""

import pytest

from lora_kit.assemble import Opened
from lora_kit.data.types import Message
from lora_kit.serve.window import fit_window


def conversation(pairs: int, system: bool = False) -> list[Message]:
    turns = [Message("system", "be brief")] if system else []
    for n in range(pairs):
        turns += [Message("user", f"question {n}"), Message("assistant", f"the answer is {n}")]
    return [*turns, Message("user", "last question")]


@pytest.mark.parametrize("system", [False, True])
def test_oldest_pairs_are_left_out(llama: Opened, system: bool) -> None:
    messages = conversation(6, system)
    whole = len(llama.encoder.encode_prompt(messages))
    kept = fit_window(llama.encoder, messages, context_tokens=whole, max_new_tokens=10)
    assert len(llama.encoder.encode_prompt(kept)) <= whole - 10
    left_out = len(messages) - len(kept)
    assert left_out in (2, 4)
    assert kept == messages[:system] + messages[system + left_out :]


def test_what_fits_stays(llama: Opened) -> None:
    messages = conversation(3)
    whole = len(llama.encoder.encode_prompt(messages))
    assert fit_window(llama.encoder, messages, context_tokens=whole + 10, max_new_tokens=10) == messages
    assert fit_window(llama.encoder, messages, context_tokens=None, max_new_tokens=10) == messages


def test_a_long_answer_may_take_a_quarter_of_the_context(llama: Opened) -> None:
    messages = conversation(3)
    whole = len(llama.encoder.encode_prompt(messages))
    room = -(-whole * 4 // 3) + 1
    assert fit_window(llama.encoder, messages, context_tokens=room, max_new_tokens=10**6) == messages
    assert fit_window(llama.encoder, messages, context_tokens=room - 8, max_new_tokens=10**6) != messages


def test_the_last_question_always_stays(llama: Opened) -> None:
    messages = conversation(2, system=True)
    kept = fit_window(llama.encoder, messages, context_tokens=4, max_new_tokens=10)
    assert kept == [messages[0], messages[-1]]
