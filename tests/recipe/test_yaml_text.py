import math

import pytest

from lora_kit.recipe.yaml_text import MAX_BYTES, plain_scalar, read_draft


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 0.0002),
        ("1E-5", 0.00001),
        ("2.0e-4", 0.0002),
        ("+1.", 1.0),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("2026-11-22", "2026-11-22"),
        ("nUll", "nUll"),
        ("1e", "1e"),
        ("٣", "٣"),  # a digit, but not of YAML
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text, value):
    found = plain_scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_float():
    assert math.isnan(plain_scalar(".nan"))


@pytest.fixture
def read(tmp_path):
    def run(text):
        path = tmp_path / "r.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_draft(path)

    return run


def test_every_key_has_its_line(read):
    draft = read("name: x\n# comment\nlora:\n  rank: 8\n\n  alpha: 1\n  targets:\n    - a\n    - b\n")
    places = {key: place.rpartition(":")[2] for key, place in draft.places.items()}
    assert places == {"name": "1", "lora": "3", "lora.rank": "4", "lora.alpha": "6", "lora.targets": "7"}
    assert draft.values == {"name": "x", "lora": {"rank": 8, "alpha": 1, "targets": ["a", "b"]}}


def test_quoted_and_block_scalars_stay_text(read):
    draft = read("a: '8'\nb: \"true\"\nc: |\n  1\nd: >-\n  2\n")
    assert draft.values == {"a": "8", "b": "true", "c": "1\n", "d": "2"}


@pytest.mark.parametrize(
    "text", ["\ufeffname: x\n", "name: x\r\n", "name: x", "---\nname: x\n...\n", "{name: x}"]
)
def test_harmless_variants_are_read_alike(read, text):
    assert read(text).values == {"name": "x"}


def test_a_file_at_the_limit_is_read(read):
    text = "name: x\n#"
    assert read(text + "-" * (MAX_BYTES - len(text))).values == {"name": "x"}


def test_the_first_of_a_key_given_twice_stays(read):
    draft = read("lora:\n  rank: 8\n  rank: 16\n")
    assert draft.values == {"lora": {"rank": 8}}
    assert draft.place("lora.rank").endswith(":2")
    assert [(p.where[-1], p.key) for p in draft.problems.values()] == [("3", "lora.rank")]
