"""A finite spike of the loss is told in the log, to whoever watches and in the report; the run goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.recipe.load import load_recipe
from lora_kit.report.write import write_report
from lora_kit.train import step as step_module
from lora_kit.train.observe import Silent
from lora_kit.train.spikes import FEWEST, WINDOW, LossWatch
from lora_kit.train_run import train_recipe

pytestmark = pytest.mark.fault("D12")


class Listening(Silent):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def noted(self, text: str) -> None:
        self.heard.append(text)


def test_a_spike_is_an_event_and_nothing_more(
    tiny_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_step, count = step_module.Stepper.step, [0]

    def step(self: Any, micro_batches: Any) -> Any:
        count[0] += 1
        result = true_step(self, micro_batches)
        return result._replace(loss=result.loss * 30) if count[0] == 7 else result

    recipe, listening = load_recipe(tiny_recipe(train={"steps": 8})), Listening()
    train_recipe(recipe, tmp_path / "even", Silent())
    monkeypatch.setattr(step_module.Stepper, "step", step)
    assert train_recipe(recipe, tmp_path / "odd", listening)["status"] == "finished"
    lines = [json.loads(line) for line in (tmp_path / "odd/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "spike" in line] == [7]
    assert lines[6]["spike"] > 10
    assert [text for text in listening.heard if "step 7: loss" in text and "times the median" in text]
    weights = [(tmp_path / run / "adapter/adapter_model.safetensors").read_bytes() for run in ("even", "odd")]
    assert weights[0] == weights[1]
    write_report(RunDir(tmp_path / "odd"))
    assert "Spikes of the loss" in (tmp_path / "odd/report.md").read_text()
    assert "step 7" in (tmp_path / "odd/report.md").read_text()


def test_what_is_a_spike() -> None:
    watch = LossWatch()
    assert [watch.look(loss) for loss in (1.0, 99.0, *[1.0] * (FEWEST - 2), 10.0, 10.1)] == [
        *[0.0] * (FEWEST + 1),
        10.1,
    ]
    assert LossWatch().look(float("inf")) == 0.0
    assert LossWatch([0.0] * 9).look(5.0) == 0.0, "a run that has nothing left to learn has no median"


def test_a_resumed_run_sees_the_same() -> None:
    losses = [1.0 + index % 3 for index in range(2 * WINDOW)]
    whole, resumed = LossWatch(), LossWatch(losses)
    for loss in losses:
        whole.look(loss)
    assert whole.look(25.0) == resumed.look(25.0) == 12.5
