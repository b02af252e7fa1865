"""What an adapter has seen of a suite, from its recipe and its rows."""

import json
from pathlib import Path

import pytest

from lora_kit.data.types import Message
from lora_kit.harness.leakage import adapter_overlap, leakage_notes, leakage_report, training_overlap
from lora_kit.harness.measures import SHAPE
from lora_kit.harness.results import Answer, ItemResult
from lora_kit.harness.score import Scores
from lora_kit.harness.suite import Item, Suite
from lora_kit.recipe.schema import DataSpec

LONG = "the old stone bridge over the river was pulled down in nineteen twenty eight when ships grew larger"
FRESH = "please name seven rivers that cross at least three different countries on their way to some sea"


def item(name: str, prompt: str, reference: str = "short") -> Item:
    return Item(name, "c", (Message("user", prompt),), reference, name, "p:1")


SUITE = Suite(
    "mine",
    "",
    (
        item("exact", LONG),
        item("possible", f"{FRESH} {' '.join(LONG.split()[:8])} and then many other words follow"),
        item("clean", "a question of nothing but words that nobody ever wrote in any row"),
        item("answer", "who was it", LONG.replace("pulled down", "torn up")),
    ),
    ("chrf",),
)


def rows(folder: Path, *texts: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"instruction": text, "output": "yes"}) + "\n" for text in texts))
    return path


def spec(path: Path) -> DataSpec:
    return DataSpec(train=str(path), format="alpaca", validation_fraction=0.0)


def found(path: Path, **before) -> dict:
    return training_overlap(spec(path), SUITE, before)


def test_items_are_found_by_level_with_their_rows(tmp_path):
    overlap = found(rows(tmp_path, "Nothing of it here at all", f"Tell me: {LONG.upper()}!"))
    assert overlap["status"] == "known"
    assert [(one["id"], one["level"]) for one in overlap["items"]] == [
        ("exact", "exact"),
        ("possible", "possible"),
        ("answer", "possible"),
    ]
    assert overlap["counts"] == {"exact": 1, "probable": 0, "possible": 2, "none": 1}
    assert overlap["items"][0]["found"][0]["rows"] == ["rows.jsonl:2"]
    assert overlap["items"][2]["found"][0]["part"] == "reference"
    assert leakage_notes(overlap) == [
        "seen in training: 1 exact, 2 possible of 4 items; read the scores without them"
    ]


def test_nothing_seen_says_nothing(tmp_path):
    overlap = found(rows(tmp_path, "Nothing of it here at all"))
    assert overlap["counts"]["none"] == 4
    assert leakage_notes(overlap) == []


def test_rows_that_are_gone_or_changed_are_not_guessed_at(tmp_path):
    gone = found(tmp_path / "gone.jsonl")
    assert (gone["status"], "items" in gone) == ("unknown", False)
    path = rows(tmp_path, LONG)
    sources = found(path)["sources"]
    assert found(path, sources=sources)["status"] == "known"
    rows(tmp_path, LONG, "one more row")
    changed = found(path, sources=sources)
    assert changed["reason"] == "the training rows have changed since the run: rows.jsonl"
    assert leakage_notes(changed)[0].startswith("whether the suite was seen in training is unknown: ")


def test_broken_rows_are_a_reason_not_a_crash(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": 3}\n')
    overlap = found(path)
    assert overlap["status"] == "unknown"
    assert "rows.jsonl:1" in overlap["reason"]


def test_an_adapter_that_is_silent_about_its_training_is_unknown(tmp_path):
    assert adapter_overlap(tmp_path, SUITE)["status"] == "unknown"
    (tmp_path / "recipe.yaml").write_text("name: [")
    assert "can't be read" in adapter_overlap(tmp_path, SUITE)["reason"]


def answered(name: str, stopped: bool) -> ItemResult:
    answer = Answer("x", 1, stopped, {}, None, None, 1)
    return ItemResult(name, "c", "p", "r", {"base": answer}, cluster=name)


@pytest.mark.parametrize(
    ("levels", "titles", "values"),
    [
        (
            {"a": "exact", "b": "possible"},
            ["without exact and probable", "without any overlap"],
            [2 / 3, 1.0],
        ),
        ({"a": "probable"}, ["without exact and probable"], [2 / 3]),
        ({"b": "possible"}, ["without any overlap"], [2 / 3]),
        (dict.fromkeys("abcd", "exact"), [], []),
        ({}, [], []),
    ],
)
def test_scores_are_given_without_what_was_seen(levels, titles, values):
    items = [answered(name, name in "cd") for name in "abcd"]
    overlap = {"status": "known", "items": [{"id": k, "level": v} for k, v in levels.items()]}

    def score(some):
        table = {"stop_rate": SHAPE["stop_rate"]}
        return Scores({"base": table}, some, [one.cluster for one in some], samples=100, seed=0)

    report = leakage_report(overlap, items, score)
    assert [subset["title"] for subset in report["subsets"]] == titles
    found = [subset["models"][0]["metrics"]["stop_rate"]["value"] for subset in report["subsets"]]
    assert found == pytest.approx(values)
    json.dumps(report, allow_nan=False)
