"""`lora-kit reproduce`: an honest run comes out the same, and of a changed one it says what moved."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit import replay
from lora_kit.artifacts.manifest import file_sha256
from lora_kit.cli.app import run
from lora_kit.train.runtime import runtime_identity


@pytest.fixture
def finished(tiny_recipe: Callable[..., Path], tmp_path: Path) -> Path:
    recipe = tiny_recipe(train={"steps": 5, "save_every": 2, "validate_every": 2, "keep_checkpoints": 9})
    assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def reproduce(
    folder: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    code = run(["reproduce", str(folder), "--json", *options])
    told = capsys.readouterr()
    return code, json.loads(told.out) if told.out else {}, told.err


@pytest.mark.fault("P15")
def test_an_honest_run_comes_out_the_same_and_is_not_changed(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [path for path in finished.rglob("*") if path.is_file()]
    before = {path: file_sha256(path) for path in files}
    code, found, told = reproduce(finished, capsys, "--steps", "4")
    assert (code, found["moved"]) == (0, []), told
    assert found["repeated"]["equal"]
    assert found["repeated"]["steps"] == 4
    assert found["repeated"]["checkpoint"] == "equal to the bit at step 4"
    assert {path: file_sha256(path) for path in finished.rglob("*") if path.is_file()} == before
    assert run(["reproduce", str(finished), "--steps", "3"]) == 0
    said = capsys.readouterr().out
    assert "all 3 equal to the bit" in said
    assert "moved" not in said


def test_a_changed_row_is_named(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace("It has 2 legs.", "It has two or three legs."))
    code, found, told = reproduce(finished, capsys)
    assert code == 4
    assert found["moved"] == ["data"]
    assert "what moved: data" in told
    assert "rows.jsonl" in next(layer for layer in found["layers"] if layer["name"] == "data")["problems"][0]
    assert not found["repeated"]["equal"]
    assert found["repeated"]["largest_loss_difference"] > 1e-4
    assert any("rows.jsonl:" in row for row in found["repeated"]["rows"])


def test_a_changed_template(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "base/tokenizer_config.json"
    content = json.loads(config.read_text())
    content["chat_template"] = content["chat_template"].replace("'<|im_end|>\n'", "'<|im_end|>\n\n'")
    config.write_text(json.dumps(content))
    code, found, _ = reproduce(finished, capsys)
    assert code == 4
    assert found["moved"] == ["template and tokenizer"]
    problems = next(each for each in found["layers"] if each["name"] == "template and tokenizer")["problems"]
    assert problems[0].startswith("template: was ")
    assert found["repeated"]["first_different_step"] == 1


@pytest.mark.parametrize(
    ("changes", "moved", "said"),
    [
        ({"threads": "7"}, "threads", "was 1, is 7 here"),
        ({"versions": "torch 9.9"}, "libraries", "is torch 9.9 here"),
        ({"hardware": "abacus"}, "hardware", "is abacus here"),
    ],
    ids=["threads", "libraries", "hardware"],
)
def test_another_machine_is_told_even_where_the_numbers_agree(
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    moved: str,
    said: str,
) -> None:
    monkeypatch.setattr(replay, "runtime_identity", lambda: {**runtime_identity(), **changes})
    code, found, _ = reproduce(finished, capsys, "--steps", "2")
    assert code == 0, "the same numbers on another machine are no error"
    assert found["moved"] == [moved]
    assert said in next(layer for layer in found["layers"] if layer["name"] == moved)["problems"][0]
    assert found["repeated"]["equal"]


def test_numbers_that_drift_are_measured(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lora_kit.train.plan import TrainPlan

    true_rate = TrainPlan.learning_rate
    monkeypatch.setattr(
        TrainPlan, "learning_rate", lambda plan, step: true_rate(plan, step) * (1 + (step == 3))
    )
    code, found, told = reproduce(finished, capsys, "--steps", "4")
    assert code == 4
    assert "nothing that was compared" in told
    repeated = found["repeated"]
    assert (repeated["first_different_step"], repeated["fields"]) == (3, ["learning_rate"])
    assert 0 < repeated["largest_loss_difference"] < 1
    assert repeated["checkpoint"].startswith("differs at step 4 in ")


def test_without_its_base_nothing_is_repeated(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tmp_path / "base")
    code, found, told = reproduce(finished, capsys)
    assert code == 7
    assert found["repeated"] is None
    assert "base" in found["moved"]
    assert "no step was made again" in told


def test_a_run_without_a_step_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce", str(tmp_path)]) == 2
    assert "not a run" in capsys.readouterr().err
