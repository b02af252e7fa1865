"""A tiny suite, and finished runs of each family that many tests look at."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

QUESTIONS = [
    ("Name the colour of a cow.", "It is the colour number 9, as everybody knows."),
    ("How many legs has a bird?", "It has 2 legs."),
    ("Say something about rain", "There is not much to say about it, but 3 times is enough."),
    ("How many legs has a table?", "It has 4 legs."),
    ("Name the colour of the sea.", "It is the colour number 5, as everybody knows."),
    ("How many legs has a snake?", "It has 0 legs."),
    ("Say something about snow", "There is not much to say about it, but 8 times is enough."),
    ("Name the colour of ink.", "It is the colour number 1, as everybody knows."),
]


@pytest.fixture
def tiny_suite(tmp_path: Path) -> Path:
    """A suite file of eight prompts."""
    folder = tmp_path / "suites"
    folder.mkdir(parents=True, exist_ok=True)
    prompts = [{"id": f"t-{n}", "category": "open_qa", "prompt": ask} for n, (ask, _) in enumerate(QUESTIONS)]
    references = [{"id": f"t-{n}", "answer": answer} for n, (_, answer) in enumerate(QUESTIONS)]
    for name, rows in (("prompts", prompts), ("references", references)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "tiny.yaml"
    path.write_text(
        "name: tiny\ndescription: eight questions\nprompts: prompts.jsonl\n"
        "references: references.jsonl\nmetrics: [rouge_l, chrf]\n"
    )
    return path


TinyRun = Callable[..., Path]


@pytest.fixture
def tiny_run(tiny_recipe: Callable[..., Path], tiny_suite: Path, tmp_path: Path) -> TinyRun:
    """Factory ``tiny_run(family, *overrides)``: a run made by ``lora-kit run``, all stages."""
    from lora_kit.cli.app import run

    def build(family: str = "llama", *overrides: str) -> Path:
        recipe = tiny_recipe(family, train={"steps": 12, "learning_rate": 0.02})
        folder = tmp_path / "run"
        suites = f"evaluate.suites=[{tiny_suite}]"
        assert run(["run", str(recipe), suites, *overrides, "--run-dir", str(folder)]) == 0
        return folder

    return build
