"""Trackers: what they are told, and that nothing they do touches the run."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit.cli.app import run as command_line
from lora_kit.recipe.fingerprint import training_fingerprint
from lora_kit.recipe.load import load_recipe
from lora_kit.train import trackers
from lora_kit.train.observe import Silent, StepRecord
from lora_kit.train.trackers import tracked
from lora_kit.train_run import train_recipe

TinyRecipe = Callable[..., Path]


class StandIn:
    """A tracker as Accelerate knows them; `trouble` is called at each point of its life."""

    requires_logging_directory = False
    made: list["StandIn"]
    trouble: Callable[[str], None]

    def __init__(self, project: str) -> None:
        self.project = project
        self.told: list[Any] = []
        type(self).made.append(self)

    def start(self) -> None:
        type(self).trouble("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(values)
        type(self).trouble("settings")

    def log(self, values: dict[str, float], step: int) -> None:
        type(self).trouble("log")
        self.told.append((step, values))

    def finish(self) -> None:
        type(self).trouble("finish")
        self.told.append("finished")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    kind = type("Kind", (StandIn,), {"made": [], "trouble": staticmethod(lambda _: None)})
    monkeypatch.setitem(trackers.LOGGER_TYPE_TO_CLASS, "wandb", kind)
    monkeypatch.setattr(trackers, "find_spec", lambda name: name)
    return kind


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, text: str) -> None:
        self.notes.append(text)


def train(recipe: Path, run: Path, *overrides: str) -> tuple[dict[str, Any], list[str]]:
    observer = Notes()
    return train_recipe(load_recipe(recipe, overrides), run, observer), observer.notes


def weights(run: Path) -> str:
    return hashlib.sha256((run / "adapter/adapter_model.safetensors").read_bytes()).hexdigest()


def test_a_tracker_is_told_the_recipe_and_each_step(
    tiny_recipe: TinyRecipe, tmp_path: Path, stand_in: type[StandIn]
) -> None:
    state, notes = train(tiny_recipe(), tmp_path / "run", "engine.trackers=[wandb]")
    [made] = stand_in.made
    settings, *steps, end = made.told
    assert made.project == "tiny"
    assert settings["lora.rank"] == 4
    assert settings["name"] == "tiny"
    assert all(isinstance(value, str | int | float | bool) for value in settings.values())
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [(step, values["loss"]) for step, values in steps] == [(one["step"], one["loss"]) for one in lines]
    assert ["validation_loss" in values for _, values in steps] == ["validation_loss" in one for one in lines]
    assert end == "finished"
    assert state["status"] == "finished"
    assert not [note for note in notes if "missed" in note]


@pytest.mark.parametrize("where", ["start", "log", "finish"])
@pytest.mark.parametrize("error", [ConnectionError("no route"), SystemExit(1)], ids=["error", "exit"])
def test_a_tracker_that_fails_costs_the_run_nothing(
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    stand_in: type[StandIn],
    where: str,
    error: BaseException,
) -> None:
    def trouble(point: str) -> None:
        if point == where:
            raise error

    stand_in.trouble = staticmethod(trouble)
    recipe = tiny_recipe(train={"steps": 2, "validate_every": None})
    _, notes = train(recipe, tmp_path / "run", "engine.trackers=[wandb]")
    train(recipe, tmp_path / "plain")
    assert weights(tmp_path / "run") == weights(tmp_path / "plain")
    said = [note for note in notes if note.startswith("wandb missed steps of this run: ")]
    assert len(said) == 1
    assert type(error).__name__ in said[0]


def test_a_service_that_never_answers_is_not_waited_for(
    stand_in: type[StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for_ever = threading.Event()
    stand_in.trouble = staticmethod(lambda _: for_ever.wait() and None)
    monkeypatch.setattr(trackers, "LAST_SECONDS", 0.01)
    monkeypatch.setattr(trackers, "WAITING", 3)
    record = StepRecord(1, 0, 2.5, 1e-3, 0.7, 10, 40, ("r:1",), 0.5, 80.0, 10**9)
    observer = Notes()
    with tracked(observer, ["wandb"], project="p", folder=tmp_path, settings={}) as watched:
        for _ in range(20):
            watched.stepped(record)
    assert observer.notes == ["wandb missed steps of this run: it did not keep up"]
    for_ever.set()


def test_a_missing_library_is_one_line_with_its_command(
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    wrong = ["train", str(tiny_recipe()), "engine.trackers=[mlflow]", "--run-dir", str(tmp_path / "run")]
    assert command_line(wrong) == 5
    errors = capsys.readouterr().err
    assert "engine.trackers: mlflow is not installed; pip install 'lora-kit[mlflow]'" in errors
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_trackers_are_not_part_of_what_is_trained(tiny_recipe: TinyRecipe) -> None:
    plain, with_one = load_recipe(tiny_recipe()), load_recipe(tiny_recipe(), ["engine.trackers=[trackio]"])
    assert training_fingerprint(plain) == training_fingerprint(with_one)


def test_tensorboard_itself(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, notes = train(tiny_recipe(), tmp_path / "run", "engine.trackers=[tensorboard]")
    assert not [note for note in notes if "missed" in note]
    events = EventAccumulator(str(tmp_path / "run/trackers/tiny"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    found = [(one.step, one.value) for one in events.Scalars("loss")]
    assert [step for step, _ in found] == [one["step"] for one in lines]
    assert [value for _, value in found] == pytest.approx([one["loss"] for one in lines], rel=1e-5)
