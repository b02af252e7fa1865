"""A training run, from recipe to adapter: it learns, resumes bit for bit, stops when asked, saves no NaN."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_kit import train_run
from lora_kit.artifacts.metrics_log import read_metrics, stable_digest
from lora_kit.errors import (
    DataError,
    DivergedError,
    InterruptedRunError,
    LoraKitError,
    MachineError,
    RecipeError,
)
from lora_kit.recipe.load import load_recipe
from lora_kit.train import step as step_module
from lora_kit.train.observe import Silent, StepRecord
from lora_kit.train_run import train_recipe

TinyRecipe = Callable[..., Path]


def train(recipe: Path, run: Path, *overrides: str, observer: Silent | None = None) -> dict[str, Any]:
    return train_recipe(load_recipe(recipe, overrides), run, observer or Silent())


def digests(run: Path) -> dict[str, str]:
    last = max((run / "checkpoints").glob("step-*"))
    return {
        "adapter": hashlib.sha256((run / "adapter/adapter_model.safetensors").read_bytes()).hexdigest(),
        "optimizer": hashlib.sha256((last / "optimizer.safetensors").read_bytes()).hexdigest(),
        "metrics": stable_digest(run / "metrics.jsonl"),
    }


class StopAt(Silent):
    """Sends this process a signal after a step."""

    def __init__(self, step: int, number: int) -> None:
        self.step = step
        self.number = number

    def stepped(self, record: StepRecord) -> None:
        if record.step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom"])
def test_it_learns_and_leaves_everything(tiny_recipe: TinyRecipe, tmp_path: Path, family: str) -> None:
    state = train(tiny_recipe(family), tmp_path / "run", "train.steps=12")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3
    assert state["status"] == "finished"
    needed = {"epoch", "learning_rate", "grad_norm", "trained_tokens", "total_tokens", "rows"}
    assert all(needed | {"tokens_per_second", "peak_memory_bytes"} <= line.keys() for line in lines)
    assert all("rows.jsonl:" in origin for line in lines for origin in line["rows"])
    assert "validation_loss" in lines[2]
    for line in lines:
        assert sum(line["row_nats"]) == pytest.approx(line["loss"] * line["trained_tokens"], abs=1e-3)
        assert sum(line["row_tokens"]) == line["trained_tokens"]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"recipe.yaml", "data_report.json", "metrics.jsonl", "checkpoints", "adapter", "run.json"} <= names
    adapter = {path.name for path in (tmp_path / "run/adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "lora_kit.json"} <= adapter
    assert {"tokenizer.json", "recipe.yaml", "README.md"} <= adapter
    tensors = load_file(tmp_path / "run/adapter/adapter_model.safetensors")
    assert all(tensor.abs().max() > 0 for tensor in tensors.values())


@pytest.mark.parametrize(
    ("family", "number", "code"), [("llama", signal.SIGINT, 130), ("bloom", signal.SIGTERM, 143)]
)
@pytest.mark.fault("D4")
def test_stopped_and_resumed_equals_never_stopped(
    tiny_recipe: TinyRecipe, tmp_path: Path, family: str, number: int, code: int
) -> None:
    recipe = tiny_recipe(family)
    train(recipe, tmp_path / "unbroken")
    with pytest.raises(InterruptedRunError, match="stopped after step 3 of 6") as stopped:
        train(recipe, tmp_path / "broken", observer=StopAt(3, number))
    assert stopped.value.exit_code == code
    assert f"lora-kit train {tmp_path / 'broken'}" in str(stopped.value)
    assert (tmp_path / "broken/checkpoints/step-000003").is_dir()
    train(recipe, tmp_path / "broken")
    assert digests(tmp_path / "broken") == digests(tmp_path / "unbroken")


@pytest.mark.fault("D15")
def test_a_finished_run_changes_nothing(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    train(recipe, tmp_path / "run")
    before = file_times(tmp_path / "run")
    assert train(recipe, tmp_path / "run")["status"] == "finished"
    assert file_times(tmp_path / "run") == before


def file_times(folder: Path) -> dict[Path, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.fault("D18")
def test_micro_batches_do_not_change_the_result(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    recipe = tiny_recipe(lora={"dropout": 0.0})
    for budget in ("8", "4096"):
        train(recipe, tmp_path / budget, f"train.micro_batch_tokens={budget}")
    one, many = (load_file(tmp_path / b / "adapter/adapter_model.safetensors") for b in ("4096", "8"))
    assert all(torch.allclose(one[name], many[name], atol=1e-5) for name in one)
    one, many = (read_metrics(tmp_path / b / "metrics.jsonl") for b in ("4096", "8"))
    for line, other in zip(
        one, many, strict=True
    ):  # each row's part too, in whatever order they are computed
        assert line["row_nats"] == pytest.approx(other["row_nats"], abs=5e-3)
        assert line["row_tokens"] == other["row_tokens"]


@pytest.mark.fault("D23")
def test_best_keeps_the_step_with_the_lowest_held_out_loss(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    recipe = tiny_recipe(train={"learning_rate": 0.3, "validate_every": 1, "steps": 8, "keep_checkpoints": 1})
    state = train(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["validation_loss"] for line in lines}
    assert state["kept_step"] == min(losses, key=losses.__getitem__)
    assert state["validation_loss"] == losses[state["kept_step"]]
    kept = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert kept == {f"step-{state['kept_step']:06d}", "step-000008"}
    assert train(recipe, tmp_path / "last", "train.keep=last")["kept_step"] == 8


def test_another_recipe_is_refused_in_the_same_directory(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    train(tiny_recipe(), tmp_path / "run")
    with pytest.raises(RecipeError, match="belongs to another recipe"):
        train(tiny_recipe(), tmp_path / "run", "train.learning_rate=0.5")


@pytest.mark.fault("B23")
def test_changed_data_are_refused_on_resume(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    with pytest.raises(InterruptedRunError):
        train(recipe, tmp_path / "run", observer=StopAt(3, signal.SIGINT))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace("fox", "wolf"))
    with pytest.raises(DataError, match=r"rows\.jsonl: has changed since the run began"):
        train(recipe, tmp_path / "run")
    (tmp_path / "run/data_report.json").unlink()
    with pytest.raises(DataError, match="data_fingerprint"):
        train(recipe, tmp_path / "run")


@pytest.mark.fault("D14")
def test_other_threads_need_permission_and_mark_the_run(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe()
    with pytest.raises(InterruptedRunError):
        train(recipe, tmp_path / "run", observer=StopAt(3, signal.SIGINT))
    monkeypatch.setattr(train_run, "runtime_identity", lambda: {"versions": "x", "threads": "99"})
    with pytest.raises(MachineError, match="threads"):
        train(recipe, tmp_path / "run")
    state = train_recipe(load_recipe(recipe), tmp_path / "run", Silent(), allow_inexact=True)
    assert any("threads" in mark for mark in state["inexact"])
    assert "Inexact resume" in (tmp_path / "run/adapter/README.md").read_text()


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.fault("D11", "P8")
def test_a_number_that_is_not_finite_stops_before_the_update(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    recipe = tiny_recipe(lora={"dropout": 0.0})
    train(recipe, tmp_path / "good", "train.steps=3", "train.schedule=constant", "train.keep=last")
    poison(monkeypatch, where, at_step=4)
    with pytest.raises(DivergedError, match=r"step 4: learning rate 0.01: .*rows\.jsonl:\d+") as error:
        train(recipe, tmp_path / "bad", "train.steps=6", "train.schedule=constant")
    assert error.value.exit_code == 6
    good = load_file(tmp_path / "good/adapter/adapter_model.safetensors")
    last_good = load_file(tmp_path / "bad/last_good/adapter_model.safetensors")
    assert good.keys() == last_good.keys()
    assert all(torch.equal(good[name], last_good[name]) for name in good)
    assert not (tmp_path / "bad/adapter").exists()
    assert (tmp_path / "bad/checkpoints/step-000003").is_dir()


def poison(monkeypatch: pytest.MonkeyPatch, where: str, at_step: int) -> None:
    """Make the loss, or only its gradient, NaN at one step."""
    true_sum, true_step, count = step_module.sum_nats, step_module.Stepper.step, [0]

    def sum_nats(model: Any, batch: Any) -> Any:
        loss = true_sum(model, batch)
        if count[0] != at_step:
            return loss
        if where == "loss":
            return loss._replace(nats=loss.nats * float("nan"))
        loss.nats.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    def step(self: Any, micro_batches: Any) -> Any:
        count[0] += 1
        return true_step(self, micro_batches)

    monkeypatch.setattr(step_module, "sum_nats", sum_nats)
    monkeypatch.setattr(step_module.Stepper, "step", step)


@pytest.mark.parametrize("save_every", [1, 6], ids=["saved at once", "saved at the end"])
@pytest.mark.parametrize("where", ["weights", "optimizer"])
@pytest.mark.fault("P8")
def test_numbers_that_turn_in_the_update_never_reach_the_disk(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, save_every: int
) -> None:
    true_step, count = step_module.Stepper.step, [0]

    def step(self: Any, micro_batches: Any) -> Any:
        result = true_step(self, micro_batches)
        count[0] += 1
        if count[0] == 3:
            moments = self.optimizer.state[self.parameters[0]]["exp_avg"]
            (self.parameters[0].data if where == "weights" else moments)[0, 0] = float("inf")
        return result

    monkeypatch.setattr(step_module.Stepper, "step", step)
    recipe = tiny_recipe(train={"steps": 6, "save_every": save_every, "validate_every": 6})
    with pytest.raises(DivergedError) as error:
        train(recipe, tmp_path / "run")
    assert error.value.exit_code == 6
    for path in (tmp_path / "run").rglob("*.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(path).values()), path
    assert not (tmp_path / "run/adapter").exists()


@pytest.mark.fault("D7")
def test_errors_leave_the_run_resumable(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe()
    train(recipe, tmp_path / "unbroken")
    monkeypatch.setenv("LORA_KIT_FAILPOINT", "checkpoint.after_optimizer@2=enospc")
    with pytest.raises(LoraKitError, match="no space left") as error:
        train(recipe, tmp_path / "full")
    assert error.value.exit_code == 5
    assert [path.name for path in (tmp_path / "full/checkpoints").iterdir()] == ["step-000002"]
    monkeypatch.delenv("LORA_KIT_FAILPOINT")
    train(recipe, tmp_path / "full")
    assert digests(tmp_path / "full") == digests(tmp_path / "unbroken")
