import doctest
import importlib
import pkgutil

import pytest

import lora_kit.recipe
from lora_kit.errors import RecipeError
from lora_kit.recipe.load import load_recipe
from lora_kit.recipe.shipped import (
    CARD_LABELS,
    card_fields,
    find_recipe,
    list_recipes,
    recipe_names,
    shipped_dir,
)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_open_with_a_card(name):
    assert load_recipe(name).name
    [card] = [card for card in list_recipes() if card.name == name]
    assert tuple(card.fields) == CARD_LABELS
    assert all(card.fields.values())
    assert card.fields["numbers"] in {"measured", "predicted"}


def test_quickstart_needs_no_download():
    recipe = load_recipe("quickstart")
    assert recipe.name == "quickstart"
    assert recipe.base.model.startswith("package:")
    assert recipe.data.train == str(shipped_dir("data") / "lora_guide.jsonl")


def test_find_by_name_or_path(tmp_path, monkeypatch):
    assert find_recipe("quickstart") == shipped_dir("recipes") / "quickstart.yaml"
    own = tmp_path / "own.yaml"
    own.touch()
    assert find_recipe(own) == own
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # a directory by a recipe's name hides nothing
    assert find_recipe("quickstart") == shipped_dir("recipes") / "quickstart.yaml"


@pytest.mark.parametrize(
    ("name", "found", "hint"),
    [
        ("quikstart", "no such recipe", "did you mean 'quickstart'? shipped: "),
        ("recipes/quikstart.yaml", "no such recipe", "did you mean 'quickstart'?"),
        ("zzz", "no such recipe", "shipped: "),
        (".", "is a directory, not a recipe", "shipped: "),
        ("a\0b", "no such recipe", "shipped: "),
        ("x" * 5000, "can't be looked up: File name too long", ""),
    ],
)
def test_a_recipe_that_is_not_there(tmp_path, monkeypatch, name, found, hint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        find_recipe(name)
    [problem] = caught.value.problems
    assert problem.found == found
    assert problem.cure.startswith(hint)


def test_a_sibling_file_is_suggested(tmp_path):
    (tmp_path / "my_recipe.yaml").touch()
    with pytest.raises(RecipeError, match=r"did you mean '.*/my_recipe\.yaml'\?"):
        find_recipe(tmp_path / "my_recipes.yaml")


def test_a_card_ends_with_the_comment():
    assert card_fields("# For: a\n#   b\n# note: x\n#   y\n\n# Date: z\n") == {"for": "a b"}


def test_the_examples_in_the_docstrings_run():
    names = [module.name for module in pkgutil.iter_modules(lora_kit.recipe.__path__, "lora_kit.recipe.")]
    results = [doctest.testmod(importlib.import_module(name)) for name in names]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) > 0
