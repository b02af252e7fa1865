from hypothesis import given
from hypothesis import strategies as st

from lora_kit.data.truncate import cut_prompts
from lora_kit.data.types import Conversation, Message

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    system=st.none() | TEXT,
    context=TEXT,
    question=TEXT,
    answer=TEXT.filter(bool),
    more=st.booleans(),
    room=st.integers(1, 90),
)
def test_as_much_of_the_prompt_as_fits_and_all_of_the_rest(
    byte_encoder, *, system: str | None, context: str, question: str, answer: str, more: bool, room: int
) -> None:
    head = (Message("system", system),) if system is not None else ()
    tail = (Message("user", "and?"), Message("assistant", "more")) if more else ()
    talk = Conversation(
        (*head, Message("user", question, context), Message("assistant", answer), *tail), "f:1", "g"
    )
    whole = byte_encoder.encode(talk)
    fixed = len(whole.input_ids) - len((context + question).encode())
    example = cut_prompts([talk, talk], byte_encoder.try_encode_many, room)[1]
    prompt = context + question
    if example is None:
        assert room < fixed + len(prompt[-1:].encode())
        return
    assert len(example.input_ids) <= room
    start = 1 + len((system or "").encode())
    kept = bytes(example.input_ids[start : len(example.input_ids) - (fixed - start)]).decode()
    assert prompt.endswith(kept)
    assert bool(kept) == bool(prompt)
    assert example.input_ids[start + len(kept.encode()) :] == whole.input_ids[start + len(prompt.encode()) :]
    assert example.trained_tokens == whole.trained_tokens
    one_more = prompt[len(prompt) - len(kept) - 1 :] if len(kept) < len(prompt) else ""
    assert not one_more or fixed + len(one_more.encode()) > room or len(kept) == len(prompt) - 1


def test_a_conversation_without_a_question_cannot_be_cut(byte_encoder) -> None:
    talk = Conversation((Message("assistant", "long text"),), "f:1")
    assert cut_prompts([talk], byte_encoder.try_encode_many, 3) == [None]
    assert cut_prompts([], byte_encoder.try_encode_many, 3) == []
