import json

from lora_kit.recipe.keys import all_keys, mix_keys, sections
from lora_kit.recipe.reference import json_schema, reference_markdown


def test_every_key_has_its_row():
    rows = [line for line in reference_markdown().splitlines() if line.startswith("| `")]
    entry = [key.name for key in mix_keys().values()]
    found = [row.split("`")[1] for row in rows]
    assert [name for name in found if name not in entry] == list(all_keys())
    assert [name for name in found if name in entry] == entry
    assert entry[0] == "data.mix[].train"
    assert all(row.count(" | ") == 3 for row in rows)


def test_a_row_says_type_default_and_meaning():
    assert "| `lora.rank` | an integer >= 1 | `16` | Rank R" in reference_markdown()
    assert "| `data.format` | one of auto, alpaca, dolly, messages, " in reference_markdown()
    assert "| `evaluate.suites` | a list of text | `[quickstart]` | " in reference_markdown()


def test_sections_come_with_their_sentence():
    text = reference_markdown()
    assert all(f"### {name}\n\n{spec.__doc__}\n" in text for name, spec in sections().items())


def test_the_json_schema_is_json_and_closed():
    schema = json.loads(json.dumps(json_schema()))
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["required"] == ["name", "base", "data"]
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())
    assert schema["$defs"]["LoraSpec"]["properties"]["rank"]["minimum"] == 1
