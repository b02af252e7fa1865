"""What messages, sharegpt, code and the single-turn formats make of a row."""

from typing import Any

import pytest

from lora_kit.catalogue import FORMATS
from lora_kit.data.types import Message, Row
from lora_kit.errors import DataError


def convert(name: str, fields: dict[str, Any]) -> tuple[Message, ...]:
    (conversation,) = FORMATS[name].convert(Row(fields, "f:1"))
    return conversation.messages


def test_input_and_context_are_the_context_of_the_question() -> None:
    for name, context, answer in [("alpaca", "input", "output"), ("dolly", "context", "response")]:
        turns = convert(name, {"instruction": "q", context: " c\n", answer: "a "})
        assert turns == (Message("user", "q", " c\n"), Message("assistant", "a "))


def test_messages_keep_roles_text_parts_and_train_flags() -> None:
    turns = [
        {"role": "developer", "content": "s", "name": "x"},
        {"role": "user", "content": [{"type": "text", "text": "q1"}, {"type": "text", "text": " q2"}]},
        {"role": "assistant", "content": "a", "weight": 0},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "b", "train": True, "tool_calls": None},
    ]
    assert convert("messages", {"messages": turns}) == (
        Message("system", "s"),
        Message("user", "q1 q2"),
        Message("assistant", "a", train=False),
        Message("user", ""),
        Message("assistant", "b"),
    )


@pytest.mark.parametrize(
    "speakers", [("human", "gpt"), ("user", "assistant"), ("prompter", "model"), ("human", "chatgpt")]
)
def test_sharegpt_speakers_go_by_many_names(speakers: tuple[str, str]) -> None:
    turns = [{"from": name, "value": f"by {name}"} for name in speakers * 2]
    messages = convert("sharegpt", {"id": 1, "conversations": turns})
    assert [message.role for message in messages] == ["user", "assistant"] * 2
    assert messages[0].content == f"by {speakers[0]}"


def test_sharegpt_system_prompt_in_its_field_or_as_a_turn() -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 1}]
    system = {"from": "system", "value": "s"}
    assert convert("sharegpt", {"system": "s", "conversations": turns})[0] == Message("system", "s")
    assert convert("sharegpt", {"conversations": [system, *turns]})[0] == Message("system", "s")
    assert len(convert("sharegpt", {"system": "", "conversations": turns})) == 2
    with pytest.raises(DataError, match=r"^f:1: conversations\[0\]: system message in the middle"):
        convert("sharegpt", {"system": "s", "conversations": [system, *turns]})


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        (
            {"from": "humman", "value": "q"},
            "conversations[2].from: unknown role 'humman'; did you mean 'human'?",
        ),
        (
            {"role": "user", "content": "q"},
            "conversations[2].from: missing field 'from'; this looks like OpenAI's",
        ),
        ({"from": "human"}, "conversations[2].value: missing field 'value'"),
        ({"from": "human", "value": None}, "conversations[2].value: must be text, found null"),
        ({"from": "gpt", "value": "a"}, "conversations[2]: turn is from assistant, expected user"),
        ({"from": "human", "value": "q", "weight": 0.5}, "conversations[2].weight: must be true or false"),
    ],
)
def test_sharegpt_problems_count_turns_as_in_the_file(turn: dict, problem: str) -> None:
    turns = [
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "a"},
        turn,
        {"from": "gpt", "value": "b"},
    ]
    for extra in ({}, {"system": "s"}):
        with pytest.raises(DataError) as caught:
            convert("sharegpt", {"conversations": turns} | extra)
        assert str(caught.value).startswith(f"f:1: {problem}")


def test_code_without_a_language_is_the_code_alone() -> None:
    assert convert("code", {"instruction": "q", "code": "x = 1\n"})[1].content == "x = 1\n"
    assert convert("code", {"instruction": "q", "code": " ", "language": "C"})[1].content == " "


def test_code_with_a_language_is_a_block_that_the_code_cannot_end() -> None:
    assert (
        convert("code", {"instruction": "q", "code": "x = 1\n", "language": "Python"})[1].content
        == "```python\nx = 1\n```"
    )
    inner = convert("code", {"instruction": "q", "code": "```\n````js\n", "language": "Markdown"})[1].content
    assert inner == "`````markdown\n```\n````js\n`````"
    with pytest.raises(DataError, match="f:1: language: must be the name of a language"):
        convert("code", {"instruction": "q", "code": "x", "language": "a\nb"})


def test_prompt_completion_and_text() -> None:
    assert convert("prompt_completion", {"prompt": "p ", "completion": " c"}) == (
        Message("user", "p "),
        Message("assistant", " c"),
    )
    assert convert("text", {"text": "once"}) == (Message("user", ""), Message("assistant", "once"))
