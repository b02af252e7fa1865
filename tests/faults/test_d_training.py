"""Faults of the machine and of the rows around a training run: cases D5 D6 D9 D16 D17 D22 D23."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.cli.app import run as command_line
from lora_kit.errors import LoraKitError
from lora_kit.recipe.load import load_recipe
from lora_kit.train import loop
from lora_kit.train.observe import Silent, StepRecord
from lora_kit.train_run import train_recipe

TinyRecipe = Callable[..., Path]


class At(Silent):
    """Does something after a step."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step = step
        self.action = action

    def stepped(self, record: StepRecord) -> None:
        if record.step == self.step:
            self.action()


def train(recipe: Path, run: Path, observer: Silent | None = None) -> dict[str, object]:
    return train_recipe(load_recipe(recipe), run, observer or Silent())


def unvalidated(tiny_recipe: TinyRecipe, limit: int | None = None, **training: int) -> Path:
    return tiny_recipe(
        data={"limit": limit, "validation_fraction": 0.0},
        train={"validate_every": None, "keep": "last", **training},
    )


def digests(run: Path) -> tuple[str, str]:
    weights = (run / "adapter/adapter_model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest(), stable_digest(run / "metrics.jsonl")


def test_d5_asked_twice_it_ends_at_once_and_goes_on_from_its_last_commit(
    tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    recipe = tiny_recipe()

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", At(3, twice))
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-000002"]
    train(recipe, tmp_path / "run")
    train(recipe, tmp_path / "unbroken")
    assert digests(tmp_path / "run") == digests(tmp_path / "unbroken")


def test_d6_a_closed_terminal_ends_nothing(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as closed:
        closed.close()
        monkeypatch.setattr("sys.stdin", closed)
        state = train(tiny_recipe(), tmp_path / "run", At(2, lambda: os.kill(os.getpid(), signal.SIGHUP)))
    assert state["status"] == "finished"


def test_d9_a_run_that_is_moved_away_is_one_line(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    with pytest.raises(LoraKitError, match="moved or deleted while in use") as caught:
        train(tiny_recipe(), tmp_path / "run", At(1, lambda: (tmp_path / "run").rename(tmp_path / "moved")))
    assert caught.value.exit_code == 5
    assert not (tmp_path / "run").exists()


def test_d16_clocks_that_jump_change_nothing(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe()
    train(recipe, tmp_path / "even")
    true, jumps = time.time, [0.0]

    def jump() -> float:
        jumps[0] -= 86_400
        return true() + jumps[0]

    monkeypatch.setattr("time.time", jump)
    train(recipe, tmp_path / "odd")
    assert digests(tmp_path / "odd") == digests(tmp_path / "even")


def test_d17_another_hash_seed_locale_time_zone_and_directory(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe()
    train(recipe, tmp_path / "here")
    changed = {"PYTHONHASHSEED": "4711", "LC_ALL": "C", "TZ": "Pacific/Kiritimati", "COLUMNS": "20"}
    command = [sys.executable, "-m", "lora_kit", "train", str(recipe), "--run-dir", str(tmp_path / "there")]
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    environment = os.environ | changed | {"LORA_KIT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert digests(tmp_path / "there") == digests(tmp_path / "here")


def test_d22_fewer_rows_than_a_batch(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    recipe = unvalidated(tiny_recipe, limit=2, batch_size=5, steps=3)
    state = train(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert state["status"] == "finished"
    assert [len(line["rows"]) for line in lines] == [2, 2, 2]
    assert [line["epoch"] for line in lines] == [0, 1, 2]


def test_d22_one_row(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    assert train(unvalidated(tiny_recipe, limit=1), tmp_path / "run")["status"] == "finished"


def test_d22_no_row(tiny_recipe: TinyRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.jsonl").write_text("\n")
    recipe = tiny_recipe()
    wrong = [
        "train",
        str(recipe),
        f"data.train={tmp_path / 'none.jsonl'}",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    assert command_line(wrong) == 3
    assert capsys.readouterr().err.count("error:") == 1


def test_d23_without_held_out_rows_the_last_step_is_kept(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    state = train(unvalidated(tiny_recipe), tmp_path / "run")
    assert (state["kept_step"], state["validation_loss"]) == (6, None)


@pytest.mark.parametrize(
    ("losses", "kept", "kept_loss"),
    [
        ([2.0, 2.0], 3, 2.0),  # a tie: the earlier one
        ([float("nan"), 2.0], 6, 2.0),
        ([2.0, float("inf")], 3, 2.0),
        ([float("nan"), float("nan")], 6, None),
    ],
    ids=["tie", "nan first", "infinite last", "only nan"],
)
def test_d23_held_out_losses_that_tie_or_are_not_finite(
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    losses: list[float],
    kept: int,
    kept_loss: float | None,
) -> None:
    given = iter(losses)
    monkeypatch.setattr(loop, "validation_loss", lambda *_: next(given))
    state = train(tiny_recipe(), tmp_path / "run")
    assert (state["kept_step"], state["validation_loss"]) == (kept, kept_loss)
