import json

import pytest
from typer.testing import CliRunner

from lora_kit.cli.recipes import app
from lora_kit.errors import MachineError, RecipeError
from lora_kit.recipe.keys import all_keys
from lora_kit.recipe.load import load_recipe
from lora_kit.recipe.reference import json_schema
from lora_kit.recipe.shipped import find_recipe, recipe_names


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list():
    assert all(name in run("list") for name in recipe_names())
    found = json.loads(run("list", "--json"))
    assert [entry["name"] for entry in found] == list(recipe_names())
    assert {"for", "hardware", "numbers", "path"} <= set(found[0])


def test_show():
    assert run("show", "quickstart") == find_recipe("quickstart").read_text("utf-8")
    found = json.loads(run("show", "quickstart", "--json"))
    assert len(found["fingerprint"]) == 64
    assert found["recipe"]["data"]["train"] == "sample:lora_guide.jsonl"
    assert found["recipe"]["lora"]["dropout"] == 0.0
    with pytest.raises(RecipeError, match="did you mean 'quickstart'"):
        run("show", "quikstart")


def test_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("copy", "quickstart")
    copied = tmp_path / "quickstart.yaml"
    assert load_recipe(copied) == load_recipe("quickstart")
    copied.write_text("mine", "utf-8")
    with pytest.raises(MachineError, match="exists already"):
        run("copy", "quickstart")
    assert copied.read_text("utf-8") == "mine"
    run("copy", "quickstart", "--force")
    run("copy", "quickstart", str(tmp_path / "other.yaml"))
    assert load_recipe(copied) == load_recipe(tmp_path / "other.yaml")


def test_schema():
    assert json.loads(run("schema")) == json_schema()
    assert all(f"`{key}`" in run("schema", "--markdown") for key in all_keys())


def test_recipes_answer_without_heavy_libraries(fresh_python):
    code = (
        "import sys; from typer.testing import CliRunner; from lora_kit.cli.recipes import app\n"
        "assert CliRunner().invoke(app, ['list']).exit_code == 0\n"
        "assert CliRunner().invoke(app, ['show', 'quickstart', '--json']).exit_code == 0\n"
        "heavy = {'torch', 'numpy', 'transformers', 'peft', 'accelerate', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    fresh_python(code)
