import pytest

from lora_kit.catalogue import FORMATS
from lora_kit.data.columns import check_fields, in_own_words, renamed, with_options
from lora_kit.data.prepare import prepare_data
from lora_kit.data.recognise import recognise
from lora_kit.data.types import Row
from lora_kit.errors import DataError, Problem, RecipeError

OWN = {"instruction": "question", "output": "reply"}


def test_own_columns_take_the_place_of_the_fields() -> None:
    row = Row({"question": "q", "reply": "a", "input": "c", "output": "old"}, "f:1")
    assert list(renamed(iter([row]), OWN)) == [Row({"instruction": "q", "output": "a", "input": "c"}, "f:1")]
    assert list(renamed(iter([row]), {})) == [row]
    assert list(renamed(iter([Row({"x": "q", "output": "old"}, "f:1")]), OWN)) == [Row({"x": "q"}, "f:1")]


def test_fields_can_be_swapped() -> None:
    rows = iter([Row({"prompt": "a", "completion": "q"}, "f:1")])
    swapped = renamed(rows, {"prompt": "completion", "completion": "prompt"})
    assert next(swapped).fields == {"prompt": "q", "completion": "a"}


def test_problems_speak_of_the_users_columns() -> None:
    told = in_own_words(Problem("missing field 'output'", "f:1", "output"), OWN)
    assert str(told) == "f:1: reply: missing field 'reply'"
    turns = in_own_words(Problem("must be text", "f:1", "messages[3].content"), {"messages": "chat"})
    assert turns.key == "chat[3].content"
    assert in_own_words(Problem("x", "f:1", "outputs"), OWN).key == "outputs"


def test_a_mapped_recipe_learns_the_same(write_rows, make_spec, byte_encoder) -> None:
    rows = [{"instruction": f"q{n}", "output": "a"} for n in range(9)]
    mapped = [{"question": row["instruction"], "reply": "a"} for row in rows]
    plain = prepare_data(make_spec(write_rows(rows)), byte_encoder)
    for name in ("alpaca", "auto"):
        spec = make_spec(write_rows(mapped), format=name, fields=OWN)
        assert prepare_data(spec, byte_encoder).fingerprint == plain.fingerprint
    with pytest.raises(DataError) as caught:
        prepare_data(make_spec(write_rows([{"question": "q", "output": "a"}]), fields=OWN), byte_encoder)
    assert str(caught.value).startswith("rows.jsonl:1: reply: missing field 'reply'")
    with pytest.raises(DataError, match=r"^rows\.jsonl:1: reply: empty answer"):
        prepare_data(make_spec(write_rows([{"question": "q", "reply": " "}]), fields=OWN), byte_encoder)


def test_fields_and_options_that_the_format_does_not_have() -> None:
    with pytest.raises(
        RecipeError, match=r"^data\.fields\.instrction: format 'alpaca' has no such field; did you mean 'ins"
    ):
        check_fields(FORMATS["alpaca"], {"instrction": "q", "output": "a"})
    check_fields(FORMATS["alpaca"], OWN)
    for name, options, found in [
        (
            "alpaca",
            {"branches": "all"},
            "data.options.branches: format 'alpaca' has no such option; remove it",
        ),
        ("openassistant", {"branch": "all"}, "data.options.branch: .* did you mean 'branches'"),
        ("openassistant", {"branches": "al"}, "data.options.branches: must be one of all, best, every_turn"),
        ("openassistant", {"languages": "en"}, r"data.options.languages: must be a list; write \[en\]"),
    ]:
        with pytest.raises(RecipeError, match=found):
            with_options(FORMATS[name], options)


def test_auto_prefers_the_format_that_accounts_for_most_fields() -> None:
    row = Row({"instruction": "q", "input": "", "output": "a", "text": "all of it"}, "f:1")
    form, why = recognise([row, row], "f")
    assert (form.name, why) == ("alpaca", "the first 2 rows have instruction, input, output")


def test_auto_looks_into_the_turns() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    with pytest.raises(DataError, match="no format fits rows with the fields conversations"):
        recognise([Row({"conversations": turns}, "f:1")], "f")


def test_auto_never_guesses(write_rows, make_spec, byte_encoder) -> None:
    both = Row({"instruction": "q", "output": "a", "response": "b"}, "f:1")
    with pytest.raises(DataError, match=r"^f: data\.format: the rows could be alpaca or dolly; name one$"):
        recognise([both], "f")
    with pytest.raises(
        DataError, match="no format fits rows with the fields question, reply; name one, and map columns"
    ):
        prepare_data(make_spec(write_rows([{"question": "q", "reply": "a"}]), format="auto"), byte_encoder)


def test_auto_says_what_it_chose_and_why(write_rows, make_spec, byte_encoder) -> None:
    rows = [{"prompt": "q", "completion": f"a{n}"} for n in range(150)]
    report = prepare_data(make_spec(write_rows(rows), format="auto"), byte_encoder).report.to_json()
    assert (report["format"], report["format_reason"]) == (
        "prompt_completion",
        "the first 100 rows have prompt, completion",
    )
    assert report["rows_used"] == 150
