"""`lora-kit evaluate`, whole: nil effects, cuts, locks, and what judges said before."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit.artifacts.adapter import read_adapter, save_adapter
from lora_kit.artifacts.folder_lock import folder_lock
from lora_kit.cli.app import run
from lora_kit.harness.journal import Journal

QUICK = ("--max-new-tokens", "4", "--batch-size", "2")


@pytest.fixture
def evaluate(tiny_llama: Path, tiny_suite: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """``evaluate(*options)``: the words of a command about a model alone."""
    return lambda *options: [
        *("evaluate", str(tiny_llama), "--suite", str(tiny_suite), "--out", str(tmp_path / "out"), *QUICK),
        *options,
    ]


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text("utf-8"))
    return found


def keys_of(journal: Path) -> list[str]:
    return [json.loads(line)["key"] for line in journal.read_text("utf-8").splitlines()]


def test_an_adapter_without_any_effect_is_said_to_have_none(
    tiny_recipe: Callable[..., Path], tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "run"
    assert run(["train", str(tiny_recipe(train={"steps": 2})), "--run-dir", str(trained)]) == 0
    saved = read_adapter(trained / "adapter")
    tensors = {name: tensor * 0 if "lora_B" in name else tensor for name, tensor in saved.tensors().items()}
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "recipe.yaml")
    files = {name: saved.folder / name for name in names if (saved.folder / name).is_file()}
    nil = tmp_path / "nil"
    save_adapter(nil, tensors=tensors, config=saved.config, provenance=saved.provenance, files=files)
    capsys.readouterr()
    out = tmp_path / "out"
    assert run(["evaluate", str(nil), "--suite", str(tiny_suite), "--out", str(out), *QUICK]) == 0
    said = capsys.readouterr().out
    note = "tuned equals base in every answer and likelihood: its effect is nil"
    assert note in " ".join(said.split())
    assert "can't tell tuned from base" in said
    assert note in results_of(out)["notes"]
    assert note in (out / "report.html").read_text("utf-8")


@pytest.mark.parametrize(("number", "code"), [(2, 130), (9, -9)], ids=["SIGINT", "SIGKILL"])
def test_a_cut_evaluation_goes_on_and_asks_nothing_twice(
    evaluate: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    forked: Callable[..., Any],
    number: int,
    code: int,
) -> None:
    def evaluate_and_die() -> int:
        kept: list[str] = []
        add = Journal.add

        def add_and_die(self: Journal, key: str, record: dict[str, Any]) -> None:
            add(self, key, record)
            kept.append(key)
            if len(kept) == 5:
                os.kill(os.getpid(), number)

        Journal.add = add_and_die  # type: ignore[method-assign]
        return run(evaluate())

    child = forked(evaluate_and_die)
    assert child.returncode == code, child.stderr
    assert "Traceback" not in child.stderr
    journal = tmp_path / "out" / "answers.jsonl"
    before = keys_of(journal)
    assert len(before) == 5
    assert not (tmp_path / "out" / "results.json").exists()
    assert run(evaluate()) == 0
    assert "16/16" in capsys.readouterr().err
    after = keys_of(journal)
    assert after[:5] == before
    assert len(after) == len(set(after)) == 16  # eight answers, eight likelihoods, each once
    cut = results_of(tmp_path / "out")
    assert run(evaluate("--out", str(tmp_path / "whole"))) == 0
    whole = results_of(tmp_path / "whole")
    assert {**cut, "seconds": 0} == {**whole, "seconds": 0}


def test_the_second_to_work_in_a_folder_is_told_who_does(
    evaluate: Callable[..., list[str]],
    tiny_suite: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert run(evaluate()) == 0
    nobody = ("--judge", "http://127.0.0.1:9/v1", "--model", "nobody")
    judge = ["judge", str(out), "--suite", str(tiny_suite), *nobody]
    capsys.readouterr()
    with folder_lock(out):
        for command in (evaluate(), judge):
            assert run(command) == 10
            said = capsys.readouterr().err
            assert f"in use by process {os.getpid()} on " in said
            assert said.count("error:") == 1
    assert run(evaluate()) == 0


def test_what_a_judge_said_outlives_an_evaluation_of_the_same_answers(
    evaluate: Callable[..., list[str]], tiny_suite: Path, tmp_path: Path, chat_stub: Any
) -> None:
    out = tmp_path / "out"
    chat_stub.script = lambda handler, _: handler.complete("3")
    assert run(evaluate()) == 0
    judge = ["judge", str(out), "--judge", chat_stub.url, "--model", "stub"]
    assert run(judge) == 0
    [section] = results_of(out)["judgments"]
    assert "base against reference" in (out / "report.html").read_text("utf-8")
    assert run(evaluate()) == 0
    assert results_of(out)["judgments"] == [section]
    assert "base against reference" in (out / "report.md").read_text("utf-8")
    prompts = tiny_suite.parent / "prompts.jsonl"
    prompts.write_text(prompts.read_text("utf-8").replace("of a cow", "of a goat"), "utf-8")
    assert run(evaluate()) == 0
    after = results_of(out)
    assert after["judgments"] == []
    sides = "what stub judged (pairwise, base against reference)"
    assert f"dropped: {sides}; prompts or answers have changed since" in after["notes"]
    asked = len(chat_stub.bodies)
    assert run(judge) == 0
    assert len(chat_stub.bodies) == asked + 2  # the one prompt that changed, in both orders
