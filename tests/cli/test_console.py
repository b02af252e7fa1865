import json

import pytest

from lora_kit.cli.console import emit_json, report_error
from lora_kit.errors import Problem, RecipeError


def test_one_problem_is_one_line(capsys):
    report_error(
        RecipeError("is " + "very " * 60 + "long", where="r.yaml:3", key="lora.rank", cure="mend [it]")
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lora_kit: error: r.yaml:3: lora.rank: is very")
    assert err.endswith("long; mend [it]\n")
    assert err.count("\n") == 1


def test_several_problems_have_one_line_with_error(capsys):
    report_error(RecipeError.collect([Problem("one", "a:1"), Problem("two", "a:2")]))
    assert capsys.readouterr().err == "lora_kit: error: several problems:\n  a:1: one\n  a:2: two\n"


def test_as_json(capsys):
    report_error(RecipeError("x\ny", where="a:1", key="k", cure="c"), json_errors=True)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert json.loads(err) == {
        "error": "RecipeError",
        "exit_code": 2,
        "problems": [{"where": "a:1", "key": "k", "found": "x\ny", "cure": "c"}],
    }


def test_a_message_can_not_drive_the_terminal(capsys):
    report_error(RecipeError("bad \x1b]0;title\x07 \udc80 é"))
    assert capsys.readouterr().err == "lora_kit: error: bad \\x1b]0;title\\x07 \\udc80 é\n"


@pytest.mark.parametrize("value", [{"text": "a" * 300}, ["[bold]é[/]", 1, None]])
def test_json_is_neither_wrapped_nor_coloured(capsys, value):
    emit_json(value)
    assert json.loads(capsys.readouterr().out) == value
