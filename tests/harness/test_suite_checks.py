"""Rules: what they let through, what they refuse, and that no answer can make them hang."""

import json
import time

import pytest

from lora_kit.errors import DataError
from lora_kit.harness import suite_checks
from lora_kit.harness.suite_checks import read_checks


def run(answer: str, **spec) -> str:
    (check,) = read_checks([spec], where="p.jsonl:1")
    found = check.run(answer)
    assert found.passed == (found.reason == "")
    assert (found.type, found.wanted) == (spec["type"], check.wanted)
    return found.reason or "passed"


@pytest.mark.parametrize(
    ("spec", "answer", "expected"),
    [
        ({"type": "contains", "value": "New York"}, "in new\n york.", "passed"),
        ({"type": "contains", "value": "New York", "ignore_case": False}, "new york", "it does not"),
        ({"type": "exact", "value": "Paris"}, " paris\n", "passed"),
        ({"type": "exact", "value": ["yes", "Yes, it does"]}, "yes, it does", "passed"),
        ({"type": "exact", "value": "Paris"}, "It is Paris", "it is 'It is Paris'"),
        ({"type": "exact", "value": "Paris"}, "", "it is empty"),
        ({"type": "regex", "value": r"^\d{3}$"}, "147", "passed"),
        ({"type": "regex", "value": r"(?i)\bmonday\b"}, "on MONDAY", "passed"),
        ({"type": "regex", "value": r"^\d{3}$"}, "14", "it does not"),
        ({"type": "number", "value": 137}, "In 1928 it was 137 years old.", "passed"),
        ({"type": "number", "value": 137}, "137 years, until 1928", "it has 1928"),
        ({"type": "number", "value": 137, "take": "any"}, "137 years, until 1928", "passed"),
        ({"type": "number", "value": 1234567.5}, "1,234,567.5 EUR", "passed"),
        ({"type": "number", "value": 3.14, "tolerance": 0.01}, "about 3.1416", "passed"),
        ({"type": "number", "value": 3.14}, "about 3.1416", "it has 3.1416"),
        ({"type": "number", "value": -5}, "minus: \u22125", "passed"),
        ({"type": "number", "value": 20}, "10-20", "passed"),
        ({"type": "number", "value": 5}, "none at all", "it has no number"),
        ({"type": "number", "value": 1000}, "1e3", "passed"),
    ],
)
def test_rules_say_what_they_see(spec, answer, expected):
    assert run(answer, **spec) == expected


SCHEMA = {
    "type": "object",
    "properties": {"name": {"$ref": "#/$defs/short"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"short": {"type": "string", "pattern": "^[a-z]+$"}},
}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"name": "ada", "age": 36}', "passed"),
        ('Here it is:\n```json\n{"name": "ada"}\n```', "passed"),
        ('{"name": "ada"} and more', "it is not JSON"),
        ('{"name": "Ada"}', "['name'] 'Ada' does not match '^[a-z]+$'"),
        ('{"age": 3}', "'name' is a required property"),
        ('{"name": NaN}', "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_json_is_held_against_a_schema(answer, expected):
    assert run(answer, type="json_schema", value=SCHEMA) == expected


def test_a_pattern_that_backtracks_for_ever_is_cut(monkeypatch):
    monkeypatch.setattr(suite_checks, "PATTERN_SECONDS", 0.05)
    evil, text = r"^(a|aa|a?)+$", "a" * 4000 + "b"
    began = time.monotonic()
    assert run(text, type="regex", value=evil) == "the pattern took more than 0.05 s"
    schema = {"type": "string", "pattern": evil}
    assert "took more than 0.05 s" in run(json.dumps(text), type="json_schema", value=schema)
    assert time.monotonic() - began < 30


def test_an_endless_schema_is_a_reason():
    loop = {"allOf": [{"$ref": "#"}]}
    assert run("1", type="json_schema", value=loop) == "it can't be checked: RecursionError"
    assert "refers to nothing" in run("1", type="json_schema", value={"$ref": "#/$defs/gone"})


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ({}, "p.jsonl:1: checks: must be a list such as"),
        ([], "p.jsonl:1: checks: must be a list such as"),
        ([3], 'p.jsonl:1: checks[0]: must be {"type", "value"}'),
        (
            [{"type": "contians", "value": "x"}],
            "checks[0].type: no check 'contians'; did you mean 'contains'?",
        ),
        ([{"type": "regex", "value": "x", "flags": "i"}], "checks[0].flags: unknown field"),
        ([{"type": "number", "value": 1, "tolerence": 1}], "did you mean 'tolerance'?"),
        ([{"type": "contains"}], "checks[0].value: must be text, found nothing"),
        ([{"type": "contains", "value": " "}], "checks[0].value: must be text"),
        (
            [{"type": "contains", "value": "x", "ignore_case": 1}],
            "checks[0].ignore_case: must be true or false",
        ),
        ([{"type": "exact", "value": []}], "checks[0].value: must be text, or a list"),
        ([{"type": "regex", "value": "("}], "checks[0].value: not a pattern: missing )"),
        ([{"type": "regex", "value": "x" * 2001}], "a pattern of more than 2000 characters"),
        ([{"type": "number", "value": "3"}], "checks[0].value: must be a number, found text"),
        ([{"type": "number", "value": True}], "must be a number, found true or false"),
        ([{"type": "number", "value": 10**400}], "must be a finite number"),
        ([{"type": "number", "value": 1, "tolerance": -1}], "tolerance: must not be negative, got -1"),
        ([{"type": "number", "value": 1, "take": "first"}], "take: must be last or any"),
        ([{"type": "json_schema", "value": []}], "value: must be a JSON schema, an object"),
        (
            [{"type": "json_schema", "value": {"type": "strin"}}],
            "value: not a JSON schema: 'strin' is not valid",
        ),
        (
            [{"type": "json_schema", "value": {"$ref": "http://example.org/s.json"}}],
            "refers to 'http://example.org/s.json': only references within the schema",
        ),
        ([{"type": "json_schema", "value": {"$ref": "file:///etc/passwd"}}], "refers to 'file:"),
        ([{"type": "json_schema", "value": {"$id": "http://x/", "$ref": "#a"}}], "has $id 'http://x/'"),
        ([{"type": "json_schema", "value": {"patternProperties": {"(a+)+": {}}}}], "has patternProperties"),
        ([{"type": "json_schema", "value": {"pattern": "("}}], "value: "),
    ],
)
def test_wrong_rules_are_named(checks, expected):
    with pytest.raises(DataError) as caught:
        read_checks(checks, where="p.jsonl:1")
    assert expected in str(caught.value)


def test_a_schema_reaches_for_no_network(no_sockets):
    assert run('"x"', type="json_schema", value={"type": "string"}) == "passed"
