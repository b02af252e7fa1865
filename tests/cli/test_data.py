import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_kit.cli.data import app
from lora_kit.errors import DataError, RecipeError
from lora_kit.harness.suite import load_suite

ROWS = [{"instruction": f"q{n}", "input": "", "output": f"answer {n}"} for n in range(7)]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([*ROWS, ROWS[0]]), "utf-8")
    return str(path)


@pytest.fixture
def recipe(tmp_path: Path, rows: str, tiny_llama: Path) -> str:
    path = tmp_path / "mine.yaml"
    data = "{train: rows.json, format: alpaca, template: alpaca, validation_fraction: 0}"
    path.write_text(
        f"name: mine\nbase: {{model: {tiny_llama}}}\ndata: {data}\ntrain: {{keep: last}}\n", "utf-8"
    )
    return str(path)


def test_check_of_a_recipe(recipe: str, tiny_llama: Path) -> None:
    found = json.loads(run("check", recipe, "--json", "--allow-outside", str(tiny_llama)))
    assert (found["rows_read"], found["rows_used"], found["dropped"]) == (8, 8, {})
    assert found["duplicates"] == {"count": 1, "rows": ["rows.json:8"]}
    assert found["tokens"] > found["trained_tokens"] > 0
    text = run("check", recipe, "data.limit=3", "--allow-outside", str(tiny_llama))
    assert "Rows read            3" in text
    assert "█" in text
    assert "longest rows" in text


def test_check_of_a_file(rows: str, tiny_llama: Path) -> None:
    found = json.loads(run("check", rows, "--format", "alpaca", "--json"))
    assert (found["rows_read"], found["conversations"], found["tokens"]) == (8, 8, None)
    text = run("check", rows, "--format", "alpaca")
    assert "not counted: that takes a recipe, or --base MODEL" in text
    assert "duplicate" in text
    counted = json.loads(run("check", rows, "--base", str(tiny_llama), "--template", "alpaca", "--json"))
    assert counted["tokens"] > 0


def test_check_looks_for_suites(rows: str, tmp_path: Path) -> None:
    chat = load_suite("chat").items[5]
    seen = {"instruction": chat.prompt, "output": "I know this one."}
    Path(rows).write_text(json.dumps([*ROWS, seen]), "utf-8")
    found = json.loads(run("check", rows, "--format", "alpaca", "--suite", "chat", "--json"))
    [one] = found["suite_overlap"]["chat"]["found"]
    assert (one["id"], one["part"], one["level"], one["rows"]) == (
        chat.id,
        "prompt",
        "exact",
        ["rows.json:8"],
    )
    text = run("check", rows, "--format", "alpaca", "--suite", "chat")
    assert "1 exact of 80 items in training rows" in text
    assert json.loads(run("check", rows, "--format", "alpaca", "--json"))["suite_overlap"] == {}


def test_check_names_near_duplicates(tmp_path: Path) -> None:
    words = " ".join(f"word{n}" for n in range(60))
    lines = [{"instruction": f"Say it {end}.", "output": words} for end in ("now", "later")]
    path = tmp_path / "near.json"
    path.write_text(json.dumps(lines), "utf-8")
    text = run("check", str(path), "--format", "alpaca")
    assert "1 rows like an earlier one" in text
    assert "near.json:2     near.json:1" in text


def test_check_names_broken_rows(tmp_path: Path, rows: str) -> None:
    with pytest.raises(DataError) as caught:
        run("check", rows, "--format", "dolly")
    assert [problem.where for problem in caught.value.problems] == [f"rows.json:{n}" for n in range(1, 9)]
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="no such file"):
        run("check", str(tmp_path / "gone.jsonl"))
    with pytest.raises(RecipeError, match="a file of rows has no keys"):
        run("check", rows, "data.limit=3")


def test_preview_in_the_terminal(recipe: str, tiny_llama: Path) -> None:
    outside = ("--allow-outside", str(tiny_llama))
    text = run("preview", recipe, "--start", "2", "--rows", "3", *outside)
    assert [line for line in text.splitlines() if line.startswith("rows.json:")] == [
        f"rows.json:{n}  train  {tokens} tokens, {trained} trained"
        for n, (tokens, trained) in zip((2, 3, 4), figures(recipe, outside)[1:4], strict=True)
    ]
    assert "### Response:«answer 1⟦</s>⟧»\n" in text
    assert text.count("«") == 3
    ids = run("preview", recipe, "--rows", "1", "--ids", *outside)
    found = json.loads(run("preview", recipe, "--rows", "1", "--ids", "--json", *outside))
    assert all(str(i) in ids for span in found[0]["spans"] for i in span["ids"])


def figures(recipe: str, outside: tuple[str, ...]) -> list[tuple[int, int]]:
    found = json.loads(run("preview", recipe, "--rows", "99", "--json", *outside))
    return [(row["tokens"], row["trained_tokens"]) for row in found]


def test_preview_as_a_page(recipe: str, tiny_llama: Path, tmp_path: Path) -> None:
    outside = ("--allow-outside", str(tiny_llama))
    page = tmp_path / "page.html"
    assert f"page over 8 rows: {page}" in run("preview", recipe, "--html", str(page), *outside)
    assert page.read_text("utf-8").startswith("<!doctype html>")
    found = json.loads(run("preview", recipe, "--html", str(page), "--rows", "2", "--json", *outside))
    assert found == {"page": str(page), "rows": 2}


def test_colours_take_the_place_of_signs(
    recipe: str, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    for no_color, signs in ((False, 0), (True, 1)):
        console = Console(force_terminal=True, color_system="truecolor", no_color=no_color, record=True)
        monkeypatch.setattr("lora_kit.cli.show_data.console", console)
        run("preview", recipe, "--rows", "1", "--allow-outside", str(tiny_llama))
        assert console.export_text().count("«") == signs
