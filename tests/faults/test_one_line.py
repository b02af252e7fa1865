"""What a user sees: one helpful line on stderr, the right exit code, no traceback, and nothing lost."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.cli.app import run

TinyRecipe = Callable[..., Path]

# What is done wrong, the exit code, and what the line has to say.
CASES: dict[str, tuple[list[str], int, list[str]]] = {
    "unknown key": (["train.lerning_rate=1"], 2, ["train.lerning_rate", "did you mean 'learning_rate'"]),
    "wrong type": (["train.steps=many"], 2, ["train.steps", "integer", "many"]),
    "out of range": (["lora.rank=0"], 2, ["lora.rank", "0"]),
    "missing file": (["data.train=nothing.jsonl"], 2, ["data.train", "no such file"]),
    "contradiction": (["train.epochs=2"], 2, ["train.epochs", "train.steps"]),
    "bad row": (["data.train=bad.jsonl"], 3, ["bad.jsonl:2", "response"]),
    "empty answer": (["data.train=empty.jsonl"], 3, ["empty.jsonl:1", "response"]),
    "too long": (["data.max_tokens=9"], 3, ["rows.jsonl", "data.max_tokens"]),
    "not a model": (["base.model=./rows"], 4, ["rows", "config.json"]),
    "pickled model": (["base.model=./pickled"], 4, ["pytorch_model.bin", "pickle"]),
    "no such target": (["lora.targets=[no_proj]"], 4, ["no_proj"]),
    "no such template": (["data.template=alpacca"], 2, ["data.template", "did you mean 'alpaca'"]),
    "no GPU": (["train.device=cuda"], 4, ["train.device", "GPU"]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.fault("P14")
def test_a_mistake_is_answered_in_one_line(
    name: str,
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides, code, said = CASES[name]
    if name == "no GPU":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = tiny_recipe()
    make_wrong_things(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(["train", str(recipe), *overrides, "--run-dir", "runs/wrong"]) == code
    errors = capsys.readouterr().err
    assert errors.count("error:") == 1
    assert "Traceback" not in errors
    message = errors[errors.index("lora_kit: error:") :]
    assert all(part in message for part in said), message
    assert all(len(line) <= 300 for line in message.splitlines())
    assert not (tmp_path / "runs/wrong/adapter").exists()


def make_wrong_things(folder: Path) -> None:
    row = {"instruction": "Why?", "context": "", "response": "Because.", "category": "open_qa"}
    (folder / "bad.jsonl").write_text(json.dumps(row) + '\n{"instruction": "What?"}\n')
    (folder / "empty.jsonl").write_text(json.dumps({**row, "response": " "}) + "\n")
    (folder / "rows").mkdir()
    (folder / "pickled").mkdir()
    (folder / "pickled/config.json").write_text((folder / "base/config.json").read_text())
    (folder / "pickled/pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")


def test_all_problems_come_at_once(
    tiny_recipe: TinyRecipe, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = tiny_recipe(train={"lerning_rate": 1, "steps": -1}, lora={"rank": "many"})
    assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 2
    errors = capsys.readouterr().err
    assert errors.count("error:") == 1
    for key in ("train.lerning_rate", "train.steps", "lora.rank"):
        assert any(key in line and "recipe.yaml:" in line for line in errors.splitlines()), key


def test_errors_as_json(tiny_recipe: TinyRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", str(tiny_recipe()), "lora.rank=0", "--json-errors"]) == 2
    error = json.loads(capsys.readouterr().err)
    assert error["exit_code"] == 2
    assert error["problems"][0]["key"] == "lora.rank"


@pytest.mark.parametrize(
    "argv", [["trian"], ["train"], ["train", "x", "--no-such-option"], ["recipes", "show"]]
)
def test_usage_errors(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == 2
    errors = capsys.readouterr().err
    assert errors.count("error:") == 1
    assert "Traceback" not in errors


@pytest.mark.fault("P14")
def test_a_bug_of_ours_leaves_its_traceback_in_a_file(
    tiny_recipe: TinyRecipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("lora_kit.inputs.find_base", lambda _: 1 / 0)
    assert run(["train", str(tiny_recipe()), "--run-dir", str(tmp_path / "run")]) == 1
    errors = capsys.readouterr().err
    assert "internal error ZeroDivisionError" in errors
    assert "Traceback" not in errors
    (trace,) = tmp_path.glob("lora_kit-*.txt")
    assert str(trace) in errors
    assert "Traceback" in trace.read_text()


@pytest.mark.fault("D7")
def test_a_full_disk_keeps_the_checkpoints_and_resumes(
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = tiny_recipe()
    monkeypatch.setenv("LORA_KIT_FAILPOINT", "checkpoint.after_adapter@2=enospc")
    assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 5
    errors = capsys.readouterr().err
    assert "no space left on device" in errors
    assert "free" in errors
    assert (tmp_path / "run/checkpoints/step-000002/manifest.json").is_file()
    monkeypatch.delenv("LORA_KIT_FAILPOINT")
    assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 0
    assert "going on after step 2" in capsys.readouterr().err


@pytest.mark.fault("D10")
def test_two_runs_in_one_directory(
    tiny_recipe: TinyRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lora_kit.artifacts.run_dir import open_run

    recipe = tiny_recipe()
    with open_run(tmp_path / "run").lock():
        assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 10
    assert f"process {os.getpid()}" in capsys.readouterr().err


@pytest.mark.fault("D4", "D6")
def test_a_real_process_stops_politely_with_its_output_closed(
    tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    recipe = tiny_recipe(train={"steps": 5000, "save_every": 1000, "validate_every": None})
    command = [sys.executable, "-m", "lora_kit", "train", str(recipe), "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while b"/5000" not in (line := process.stderr.readline()):
            assert line, "it ended before its first step"
        process.stdout.close()
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read().decode()
        assert process.wait(60) == 143
    assert "checkpoint committed; go on with: lora-kit train" in said
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 1
