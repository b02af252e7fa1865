import pytest

from lora_kit.data.checks import (
    SHOWN_PROBLEMS,
    Problems,
    blank_answer,
    has_blank_question,
    has_nul,
    is_blank,
    said_digest,
)
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import DataError, Problem


def talk(*messages: Message) -> Conversation:
    return Conversation(messages, "f:1")


@pytest.mark.parametrize("text", ["", " \t\r\n", "\u200b", "\ufeff\u200d ", "\u00a0\u2028", "\u202e", "\0"])
def test_what_cannot_be_seen_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["0", ".", " a ", "\u200b-\u200b", "\U0001f600", "e\u0301", "\u3042"])
def test_what_can_be_seen_is_not(text: str) -> None:
    assert not is_blank(text)


def test_only_answers_that_are_learned_must_not_be_blank() -> None:
    shown = Message("assistant", "", train=False)
    assert blank_answer(talk(Message("user", ""), shown, Message("assistant", "x"))) is None
    assert (
        blank_answer(talk(Message("user", "q"), shown, Message("user", "q"), Message("assistant", " "))) == 3
    )


def test_a_question_is_blank_if_its_context_is_too() -> None:
    assert has_blank_question(talk(Message("user", " ", "\n"), Message("assistant", "x")))
    assert not has_blank_question(talk(Message("user", " ", "text"), Message("assistant", "x")))


def test_nul_is_found_in_any_turn() -> None:
    assert has_nul(talk(Message("user", "q", "a\0b"), Message("assistant", "x")))
    assert not has_nul(talk(Message("user", "q"), Message("assistant", "\\0")))


def test_duplicates_say_the_same_to_the_character() -> None:
    row = talk(Message("user", "q", "c"), Message("assistant", "a"))
    same = Conversation((Message("user", "q", "c"), Message("assistant", "a", train=False)), "g:2")
    assert said_digest(row) == said_digest(same)
    for other in (
        talk(Message("user", "q", "c")),
        talk(Message("user", "q"), Message("assistant", "a")),
        talk(Message("user", "Q", "c"), Message("assistant", "a")),
        talk(Message("user", "q", "c"), Message("system", "a")),
        talk(Message("user", "qc"), Message("assistant", "a")),
        talk(Message("user", "q"), Message("assistant", "a", "c")),
    ):
        assert said_digest(row) != said_digest(other)


def test_the_first_problems_are_shown_and_the_rest_counted() -> None:
    problems = Problems()
    problems.raise_if_any()
    problems.add([Problem("bad", f"f:{n}") for n in range(1000)])
    with pytest.raises(DataError) as caught:
        problems.raise_if_any()
    lines = str(caught.value).splitlines()
    assert len(lines) == SHOWN_PROBLEMS + 1
    assert lines[0] == "f:0: bad"
    assert lines[-1] == "... and 980 more"
