"""A tiny suite, and finished runs of each family that many tests look at."""

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

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
    return suite_in(tmp_path / "suites")


def suite_in(folder: Path) -> Path:
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


class FinishedRun(NamedTuple):
    """What ``lora-kit run`` left, and what it said; many tests look at it, and none changes it."""

    folder: Path
    recipe: Path
    suite: Path
    said: str


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, recipe_in: Callable[..., Path]
) -> Callable[..., FinishedRun]:
    """Factory ``finished_run(family, *overrides)``: a run of all stages; each is made once."""
    from lora_kit.cli.app import run

    made: dict[tuple[str, ...], FinishedRun] = {}

    def build(family: str = "llama", *overrides: str) -> FinishedRun:
        if (family, *overrides) not in made:
            home = tmp_path_factory.mktemp("finished")
            recipe = recipe_in(home, family, train={"steps": 12, "learning_rate": 0.02})
            suite, said = suite_in(home / "suites"), StringIO()
            words = ["run", str(recipe), f"evaluate.suites=[{suite}]", *overrides]
            with redirect_stdout(said):
                assert run([*words, "--run-dir", str(home / "run")]) == 0
            made[family, *overrides] = FinishedRun(home / "run", recipe, suite, said.getvalue())
        return made[family, *overrides]

    return build
