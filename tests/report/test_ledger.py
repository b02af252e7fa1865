"""The ledger of rows: what the log says of each, which never learn, and planted wrong answers on top."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_kit.artifacts.metrics_log import MetricsLog
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.recipe.load import load_recipe
from lora_kit.report.ledger import Ledger, Visits, build_ledger
from lora_kit.report.ledger_view import ledger_view
from lora_kit.report.write import write_report
from lora_kit.train.observe import Silent
from lora_kit.train_run import train_recipe

THINGS = "fox dog cat sun moon tree bird fish rain snow wind hill lake road leaf"
ANSWERS = {"Say": "zup kiv gob", "Write": "vux jap wib"}
PLANTED = (9, 23, 38, 52)


def line(epoch: int, *entries: tuple[str, float, int]) -> dict[str, Any]:
    rows, losses, tokens = zip(*entries, strict=True)
    nats = [loss * count for loss, count in zip(losses, tokens, strict=True)]
    return {"epoch": epoch, "rows": list(rows), "row_nats": nats, "row_tokens": list(tokens)}


def ledger_of(*lines: dict[str, Any]) -> Ledger:
    visits = Visits()
    for one in lines:
        visits.add(one)
    ledger = build_ledger(visits)
    assert ledger is not None
    return ledger


def log_of(losses: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """Lines of a log from (rows, epochs) losses, each row in a step of its own."""
    return [
        line(epoch, (f"r:{row}", losses[row, epoch].item(), 20 + row % 30))
        for epoch in range(losses.shape[1])
        for row in np.random.default_rng(epoch).permutation(len(losses)).tolist()
    ]


def noisy(rows: int, epochs: int) -> np.ndarray[Any, Any]:
    """Losses that lean to the right, as those of rows do, and fall with the epochs."""
    draw = np.random.default_rng(0)
    falls = np.linspace(3.0, 1.0, epochs)
    return draw.lognormal(0.0, 0.3, (rows, 1)) * falls * draw.lognormal(0.0, 0.05, (rows, epochs))


def test_first_and_last_loss_of_each_row() -> None:
    ledger = ledger_of(
        line(0, ("a:1", 3.0, 10), ("a:2", 2.0, 4)),
        line(0, ("a:3", 1.0, 5)),
        line(1, ("a:3", 1.0, 5), ("a:1", 2.0, 10)),
        line(2, ("a:1", 0.5, 10)),
    )
    assert ledger.origins == ("a:1", "a:2", "a:3")
    assert ledger.times.tolist() == [3, 1, 2]
    assert ledger.first.tolist() == [3.0, 2.0, 1.0]
    assert ledger.last.tolist() == [0.5, 2.0, 1.0]
    assert ledger.tokens.tolist() == [10, 4, 5]
    assert ledger.never_learned.tolist() == [False, False, True]


def test_conversations_of_one_row_count_together() -> None:
    ledger = ledger_of(line(0, ("a:1", 3.0, 10), ("a:1", 6.0, 5)), line(1, ("a:1", 1.5, 15)))
    assert (ledger.times.tolist(), ledger.first.tolist(), ledger.last.tolist()) == ([2], [4.0], [1.5])


def test_damaged_lines_say_nothing() -> None:
    sound = line(0, ("a:1", 3.0, 10))
    damaged: list[dict[str, Any]] = [
        {},
        sound | {"row_nats": [1.0, 2.0], "epoch": None},
        sound | {"row_nats": None},
        sound | {"row_nats": [float("nan")]},
        sound | {"row_tokens": [0]},
        sound | {"row_tokens": ["9"]},
        sound | {"row_tokens": [2**70]},
        sound | {"rows": [{}]},
        sound | {"epoch": 2**80},
    ]
    assert len(ledger_of(sound, *damaged)) == 1
    visits = Visits()
    visits.add({"step": 1, "rows": ["a:1"], "epoch": 0})  # of an older version
    assert build_ledger(visits) is None


@pytest.mark.parametrize("rows", [40, 600])
def test_rows_that_stay_bad_are_found_and_others_are_left_alone(rows: int) -> None:
    losses = noisy(rows, 3)
    clean = ledger_of(*log_of(losses))
    assert clean.maybe_wrong.mean() <= 0.01
    assert not clean.never_learned.any()
    bad = [3, 17, rows - 5]
    losses[bad] = [4.0, 4.1, 4.2]
    ledger = ledger_of(*log_of(losses))
    names = [ledger.origins[row] for row in ledger.hardest()[:3]]
    assert sorted(names) == sorted(f"r:{row}" for row in bad)
    assert {ledger.origins[row] for row in np.flatnonzero(ledger.never_learned)} == set(names)
    assert {ledger.origins[row] for row in np.flatnonzero(ledger.maybe_wrong)} >= set(names)
    assert ledger.maybe_wrong.sum() <= 3 + 0.01 * rows


def test_a_row_is_held_against_rows_of_its_time() -> None:
    """In one epoch the model gets better: rows that came early are not the hard ones for that."""
    falls = np.exp(-np.arange(640) / 200) * 3
    entries = [line(0, (f"r:{row}", loss + 0.02 * (row % 7), 30)) for row, loss in enumerate(falls.tolist())]
    entries[600] = line(0, ("r:600", float(falls[600]) + 0.6, 30))
    ledger = ledger_of(*entries)
    assert not ledger.repeats
    assert ledger.origins[ledger.hardest()[0]] == "r:600"
    assert not (ledger.maybe_wrong | ledger.never_learned).any()
    view = ledger_view(ledger, "ledger.csv")
    assert [table.caption for table in view.tables] == ["Hardest rows"]
    assert "seen once" in view.tables[0].note
    assert len(view.tables[0].rows) == 20


@pytest.fixture(scope="module")
def planted(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[..., Path]
) -> Callable[..., Path]:
    """Factory of trained runs over 60 rows whose answers follow from the questions, but for some."""

    def build(wrong: tuple[int, ...]) -> Path:
        home = tmp_path_factory.mktemp("planted")
        rows = []
        for number in range(60):
            ask = ("Say", "Write")[number // 15 % 2]
            other = {"Say": "Write", "Write": "Say"}[ask]
            answer = ANSWERS[other if number + 1 in wrong else ask]
            row = {"instruction": f"{ask} {THINGS.split()[number % 15]}", "context": "", "response": answer}
            rows.append(row)
        (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipe = {
            "name": "planted",
            "base": {"model": str(tiny_folder("llama"))},
            "data": {"train": "rows.jsonl", "format": "dolly", "validation_fraction": 0.0},
            "lora": {"rank": 8, "alpha": 16},
            "train": {
                "epochs": 5,
                "batch_size": 6,
                "learning_rate": 1e-2,
                "keep": "last",
                "save_every": 100,
                "warmup_steps": 2,
            },
            "engine": {"audit": "off"},
            "evaluate": {"suites": []},
        }
        (home / "recipe.yaml").write_text(json.dumps(recipe))
        train_recipe(load_recipe(home / "recipe.yaml", allow_outside=[Path("/")]), home / "run", Silent())
        return home / "run"

    return build


def flagged(run: Path) -> tuple[list[dict[str, str]], set[int]]:
    """All rows by score, and the numbers of those that may be wrong."""
    write_report(RunDir(run))
    rows = list(csv.DictReader((run / "ledger.csv").read_text().splitlines()))
    return rows, {int(row["row"].rpartition(":")[2]) for row in rows if row["maybe_wrong"] == "1"}


def test_planted_wrong_answers_are_on_top_and_a_clean_run_has_few(planted: Callable[..., Path]) -> None:
    run = planted(PLANTED)
    rows, suspects = flagged(run)
    assert len(rows) == 60
    assert {int(row["row"].rpartition(":")[2]) for row in rows[:4]} == set(PLANTED)
    assert len(suspects) >= 2
    assert suspects <= set(PLANTED)
    page, markdown = (run / "report.html").read_text(), (run / "report.md").read_text()
    for text in (
        "Answers that may be wrong",
        "A hint, not a verdict",
        f"rows.jsonl:{min(suspects)}",
        "ledger.csv",
    ):
        assert text in page
        assert text in markdown.replace("\\", "")
    assert len(flagged(planted(()))[1]) <= 1


def test_a_log_without_rows_has_no_ledger(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    log = MetricsLog(run.metrics)
    log.append({"step": 1, "epoch": 0, "loss": 2.0, "rows": ["a:1"]})
    log.close()
    assert not write_report(run)[0].read_text().count('id="rows"')
    assert not run.ledger.exists()
