"""One contract for every format of the catalogue: a new line in it brings these tests."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.catalogue import FORMATS
from lora_kit.data.format import Format
from lora_kit.data.recognise import recognise
from lora_kit.data.types import Conversation, Row
from lora_kit.errors import DataError, Problem

SAMPLES: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "q", "input": "c", "output": "a"},
    "dolly": {"instruction": "q", "context": "c", "response": "a", "category": "closed_qa"},
    "messages": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "openassistant": {
        "message_tree_id": "t",
        "prompt": {"text": "q", "role": "prompter", "replies": [{"text": "a", "role": "assistant"}]},
    },
    "prompt_completion": {"prompt": "q", "completion": "a"},
    "code": {"instruction": "q", "context": "c", "code": "a"},
    "text": {"text": "a"},
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "from",
                    "value",
                    "text",
                    "replies",
                    "train",
                    "parent_id",
                    "rank",
                    "deleted",
                ]
            )
            | st.text(max_size=2),
            inner | st.sampled_from(["user", "assistant", "human", "gpt", "prompter", "system"]),
            max_size=4,
        )
    ),
    max_leaves=10,
)


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> Format:
    return FORMATS[request.param]


def test_its_name_is_its_name_in_the_catalogue() -> None:
    assert all(FORMATS[name].name == name for name in FORMATS)
    assert set(SAMPLES) == set(FORMATS)


def test_it_reads_its_sample(form: Format) -> None:
    (conversation,) = form.convert(Row(SAMPLES[form.name], "f:1"))
    assert conversation.origin == "f:1"
    assert [message.role for message in conversation.messages] == ["user", "assistant"]
    assert conversation.messages[1].content == "a"
    assert form.description
    assert form.answer in {*form.required, *form.optional}
    assert not set(form.required) & set(form.optional)


def test_auto_knows_its_sample(form: Format) -> None:
    chosen, why = recognise([Row(SAMPLES[form.name], "f:1")] * 3, "f")
    assert chosen.name == form.name
    assert all(name in why for name in form.required)


def test_every_required_field_is_missed_by_name(form: Format) -> None:
    for name in ("prompt",) if form.name == "openassistant" else form.required:
        row = {key: value for key, value in SAMPLES[form.name].items() if key != name}
        with pytest.raises(DataError) as caught:
            form.convert(Row(row, "f:7"))
        problem = caught.value.problems[0]
        assert (problem.where, problem.key) == ("f:7", name)
        assert f"missing field '{name}'" in problem.found


@pytest.mark.parametrize("value", [5, 1.5, True, ["x"], {"x": "y"}, [], [5], [None]], ids=json.dumps)
def test_a_field_of_another_type_is_refused_by_name(form: Format, value: object) -> None:
    for name in SAMPLES[form.name]:
        if name == "message_tree_id":
            continue
        with pytest.raises(DataError) as caught:
            form.convert(Row(SAMPLES[form.name] | {name: value}, "f:7"))
        assert caught.value.problems[0].where == "f:7"
        assert caught.value.problems[0].key.startswith(name)


def test_null_is_absent_where_a_field_is_optional(form: Format) -> None:
    given_fields = SAMPLES[form.name].keys()
    optional = [
        name for name in form.optional if name not in given_fields or name in {"input", "context", "category"}
    ]
    assert form.convert(Row(SAMPLES[form.name] | dict.fromkeys(optional), "f:1"))


@given(data=st.data())
def test_whatever_a_row_holds_it_converts_or_raises_a_data_error(data: st.DataObject) -> None:
    form = FORMATS[data.draw(st.sampled_from(list(FORMATS)))]
    fields = dict(SAMPLES[form.name])
    for name in data.draw(st.sets(st.sampled_from([*form.required, *form.optional]), min_size=1)):
        fields[name] = data.draw(VALUES)
    problems: tuple[Problem, ...] = ()
    conversations: list[Conversation] = []
    try:
        conversations = form.convert(Row(fields, "f:1"))
    except DataError as error:
        problems = error.problems
    assert all(problem.where == "f:1" and problem.key for problem in problems)
    for conversation in conversations:
        assert conversation.messages[-1].role == "assistant"
        assert all(isinstance(m.content, str) and isinstance(m.context, str) for m in conversation.messages)
