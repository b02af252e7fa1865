"""``data.mix``: a list of sources in a recipe, its paths, its errors, and its way back to text."""

import pytest

from lora_kit.recipe.fingerprint import recipe_fingerprint
from lora_kit.recipe.load import dump_recipe, load_resolved
from lora_kit.recipe.schema import MixSpec

TWO = """\
  mix:
    - {train: held_out.jsonl, weight: 0.5, fields: {response: answer}, options: {languages: [en, de]}}
    - train: sample:lora_guide.jsonl
      count: 20
      format: alpaca
"""


def test_entries_are_read_with_their_paths_and_come_back(load, minimal, folder):
    recipe = load(minimal + TWO)
    one, two = recipe.data.mix
    assert one == MixSpec(
        train=str(folder / "held_out.jsonl"),
        weight=0.5,
        fields={"response": "answer"},
        options={"languages": ("en", "de")},
    )
    assert (two.count, two.format, two.train.rpartition("/")[2]) == (20, "alpaca", "lora_guide.jsonl")
    text = dump_recipe(recipe)
    assert "sample:lora_guide.jsonl" in text
    (folder / "resolved.yaml").write_text(text)
    again = load_resolved(folder / "resolved.yaml")
    assert again == recipe
    assert recipe_fingerprint(again) == recipe_fingerprint(recipe)


def test_an_override_gives_entries_too(load, minimal, folder):
    recipe = load(minimal, f"data.mix=[{{train: {folder}/held_out.jsonl, count: 3}}]")
    assert recipe.data.mix[0].count == 3


@pytest.mark.parametrize(
    ("entry", "key", "found"),
    [
        ("{train: held_out.jsonl, wieght: 2}", "data.mix[0].wieght", "unknown key 'wieght'"),
        ("{weight: 2}", "data.mix[0].train", "is missing"),
        ("{train: held_out.jsonl, weight: 0}", "data.mix[0].weight", "must be a number > 0 and <= 1000"),
        ("{train: held_out.jsonl, format: aplaca}", "data.mix[0].format", "must be one of auto, alpaca"),
        ("{train: gone.jsonl}", "data.mix", "no such file"),
        ("{train: ../../etc/passwd}", "data.mix", "leads out of the recipe's directory"),
        ("held_out.jsonl", "data.mix", "must be a list of mappings"),
        ("7", "data.mix", "must be a list of mappings"),
    ],
)
def test_a_wrong_entry_is_named(refused, minimal, entry, key, found):
    [problem] = refused(f"{minimal}  mix: [{entry}]\n")
    assert (problem.key, problem.where) == (key, "r.yaml:7")
    assert found in problem.found


@pytest.mark.parametrize(
    ("source", "is_right"),
    [
        ("hub:tatsu-lab/alpaca", True),
        ("hub:openai/gsm8k/main/train@e53f048856ff4f594e959d75785d2c2d37b678ee", True),
        ("hub:alpaca", False),
        ("hub:../alpaca", False),
        ("hub:a/b/../c", False),
        ("hub:https://evil/x", False),
    ],
)
def test_a_data_set_on_the_hub_is_named_not_looked_up(load, refused, minimal, source, is_right):
    text = minimal.replace("rows.jsonl", source)
    if is_right:
        assert load(text).data.train == source
    else:
        [problem] = refused(text)
        assert "not the name of a data set" in problem.found
