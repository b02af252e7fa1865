"""A recipe folder with a data file, and two ways to load a text in it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.errors import Problem, RecipeError
from lora_kit.recipe.load import load_recipe
from lora_kit.recipe.schema import Recipe

MINIMAL = """\
name: first
base:
  model: owner/model
data:
  train: rows.jsonl
  format: dolly
"""

Load = Callable[..., Recipe]
Refused = Callable[..., list[Problem]]


@pytest.fixture
def minimal() -> str:
    return MINIMAL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder `project` with rows.jsonl and held_out.jsonl; the recipe is project/r.yaml."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("rows.jsonl", "held_out.jsonl"):
        (project / name).write_text("{}\n", "utf-8")
    return project


@pytest.fixture
def load(folder: Path) -> Load:
    def run(text: str | bytes = MINIMAL, *overrides: str, **options: object) -> Recipe:
        path = folder / "r.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_recipe(path, overrides, **options)

    return run


@pytest.fixture
def refused(load: Load) -> Refused:
    """Problems of a recipe that must be refused; ``where`` is cut down to the file's name."""

    def run(text: str | bytes = MINIMAL, *overrides: str, **options: object) -> list[Problem]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides, **options)
        assert caught.value.exit_code == 2
        return [
            Problem(problem.found, problem.where.rpartition("/")[2], problem.key, problem.cure)
            for problem in caught.value.problems
        ]

    return run
