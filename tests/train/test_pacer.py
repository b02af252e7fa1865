"""Runs with a deadline on a machine whose clock the tests turn: in time, by the record, and audited."""

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.errors import InterruptedRunError, ModelError, RecipeError
from lora_kit.recipe.load import load_recipe, load_resolved
from lora_kit.report.gather import gather
from lora_kit.report.training import training_facts
from lora_kit.train import loop as loop_module
from lora_kit.train import pacer as pacer_module
from lora_kit.train import step as step_module
from lora_kit.train.clock import Session
from lora_kit.train.deadline_record import read_deadline
from lora_kit.train.observe import Silent, StepRecord
from lora_kit.train.plan import TrainPlan
from lora_kit.train_run import train_recipe
from lora_kit.verify import verify_run

STARTING, STEP, CHECK, SAVE = 10.0, 3.0, 2.0, 0.5
EVENING = datetime(2026, 3, 1, 22, 58, tzinfo=UTC)


class Machine(Silent):
    """A clock that only work moves, and an observer that remembers what was said."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step_seconds = STEP
        self.day = EVENING
        self.said: list[str] = []
        self.at: dict[int, Callable[[], None]] = {}

    def session(self) -> Session:
        session = Session(self.now, clock=lambda: self.now, wall=lambda: self.day)
        self.now += STARTING
        return session

    def spend(self, seconds: float) -> None:
        self.now += seconds
        self.day += timedelta(seconds=seconds)

    def perf_counter(self) -> float:
        return self.now

    def noted(self, text: str) -> None:
        self.said.append(text)

    def stepped(self, record: StepRecord) -> None:
        self.at.pop(record.step, lambda: None)()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    true = {"step": step_module.Stepper.step}
    true |= {name: getattr(loop_module, name) for name in ("validation_loss", "save_checkpoint")}

    def slow(name: str, seconds: Callable[[], float]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            machine.spend(seconds())
            return true[name](*arguments, **options)

        return call

    monkeypatch.setattr(step_module.Stepper, "step", slow("step", lambda: machine.step_seconds))
    monkeypatch.setattr(loop_module, "validation_loss", slow("validation_loss", lambda: CHECK))
    monkeypatch.setattr(loop_module, "save_checkpoint", slow("save_checkpoint", lambda: SAVE))
    monkeypatch.setattr(loop_module, "time", machine)
    monkeypatch.setattr(loop_module, "seconds_per_token", lambda *_: STEP / 150)
    return machine


@pytest.fixture
def recipe(tiny_recipe: Callable[..., Path]) -> Path:
    spec = {"steps": None, "save_every": 5, "validate_every": 10, "warmup_steps": 2, "keep_checkpoints": 9}
    return tiny_recipe(train={**spec, "max_minutes": 2})


def train(recipe: Path, run: Path, machine: Machine, *overrides: str) -> dict[str, Any]:
    loaded = load_resolved(run / "recipe.yaml") if (run / "recipe.yaml").exists() else None
    return train_recipe(loaded or load_recipe(recipe, overrides), run, machine, session=machine.session())


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def adapter(run: Path) -> str:
    return hashlib.sha256((run / "adapter/adapter_model.safetensors").read_bytes()).hexdigest()


def check(run: Path) -> None:
    """Each step had the rate that the record says, the last one is the planned one, and an audit agrees."""
    record = read_deadline(RunDir(run))
    assert record is not None
    assert record.finished
    spec = load_resolved(run / "recipe.yaml").train
    plan = TrainPlan(1, 1, True, spec).turned(record.turns)
    made = lines(run)
    assert [line["step"] for line in made] == list(range(1, plan.steps + 1))
    assert [line["learning_rate"] for line in made] == [plan.learning_rate(line["step"]) for line in made]
    assert "validation_loss" in made[-1]
    audit = verify_run(run, Silent())
    assert not audit.problems
    assert not audit.not_replayed


def double(machine: Machine) -> None:
    machine.step_seconds = 2 * STEP


@pytest.mark.parametrize("change", ["steady", "slows", "quick", "sleeps an hour"])
def test_a_run_ends_in_time_and_is_audited(
    recipe: Path, tmp_path: Path, machine: Machine, change: str
) -> None:
    minutes = 70 if change == "sleeps an hour" else 2
    machine.at = {
        "slows": {12: lambda: double(machine)},
        "quick": {8: lambda: setattr(machine, "step_seconds", STEP / 2)},
        "sleeps an hour": {5: lambda: machine.spend(3600.0)},
    }.get(change, {})
    if minutes == 70:
        machine.step_seconds = 20.0
    began = machine.now
    state = train(recipe, tmp_path / "run", machine, f"train.max_minutes={minutes}")
    used = machine.now - began
    assert 0.85 * 60 * minutes <= used <= 60 * minutes
    told = state["deadline"]
    assert told["asked"] == f"{minutes} minutes"
    assert told["used_seconds"] == pytest.approx(used, abs=0.1)
    assert told["steps"] == state["steps"] == len(lines(tmp_path / "run"))
    assert told["replans"] <= 10
    assert lines(tmp_path / "run")[-1]["learning_rate"] < 2e-3  # of 1e-2
    [line] = [text for label, text in training_facts(gather(RunDir(tmp_path / "run"))) if label == "Deadline"]
    assert line.startswith(f"asked for {minutes} minutes, used ")
    assert line.endswith(f"{told['steps']} steps, planned anew {told['replans']} times")
    check(tmp_path / "run")


def test_steps_are_the_most(recipe: Path, tmp_path: Path, machine: Machine) -> None:
    state = train(recipe, tmp_path / "run", machine, "train.steps=7")
    assert state["steps"] == 7
    assert state["deadline"]["replans"] == 0
    check(tmp_path / "run")


def cut(machine: Machine, step: int) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    machine.at[step] = die


@pytest.mark.parametrize("lost", ["little", "much"])
def test_a_cut_run_repeats_what_was_decided_if_there_is_time(
    recipe: Path, tmp_path: Path, machine: Machine, lost: str
) -> None:
    machine.at[7] = lambda: double(machine)
    cut(machine, 18)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", machine)
    before, decided = lines(tmp_path / "run"), read_deadline(RunDir(tmp_path / "run"))
    assert decided is not None
    last = decided.decisions[-1].after
    assert 7 < last < 18
    if lost == "much":  # also the checkpoints that spare the repetition
        for step in (10, 15):
            shutil.rmtree(tmp_path / f"run/checkpoints/step-{step:06d}")
        machine.step_seconds = 4 * STEP
    began = machine.now
    train(recipe, tmp_path / "run", machine)
    assert machine.now - began <= 120 - decided.used_seconds
    after = lines(tmp_path / "run")
    same = [line["loss"] for line in after[:last]] == [line["loss"] for line in before[:last]]
    assert same == (lost == "little")
    assert any("no time to repeat" in text for text in machine.said) == (lost == "much")
    check(tmp_path / "run")


@pytest.mark.parametrize("written", [False, True])
def test_a_kill_while_the_plan_changes(
    recipe: Path, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    true_write = pacer_module.write_deadline

    def killed(path: Path, record: Any) -> None:
        if len(record.decisions) == 2:
            if written:
                true_write(path, record)
            raise KeyboardInterrupt
        true_write(path, record)

    monkeypatch.setattr(pacer_module, "write_deadline", killed)
    machine.at[7] = lambda: double(machine)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", machine)
    monkeypatch.setattr(pacer_module, "write_deadline", true_write)
    found = read_deadline(RunDir(tmp_path / "run"))
    assert found is not None
    assert len(found.decisions) == 1 + written
    train(recipe, tmp_path / "run", machine)
    now = read_deadline(RunDir(tmp_path / "run"))
    assert now is not None
    assert now.decisions[: 1 + written] == found.decisions
    check(tmp_path / "run")


def test_a_cut_at_the_end_changes_nothing(recipe: Path, tmp_path: Path, machine: Machine) -> None:
    train(recipe, tmp_path / "run", machine)
    whole = adapter(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/adapter")
    last = max((tmp_path / "run/checkpoints").iterdir())
    shutil.rmtree(last)
    state = RunDir(tmp_path / "run").state
    state.write_text(json.dumps(json.loads(state.read_text()) | {"status": "running"}))
    machine.spend(10_000.0)
    train(recipe, tmp_path / "run", machine)
    assert adapter(tmp_path / "run") == whole


def test_finish_by_goes_across_midnight_and_past_jumps_of_the_clock(
    recipe: Path, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    overrides = ("train.max_minutes=null", "train.finish_by=00:03")
    machine.step_seconds = 60.0
    machine.at[3] = lambda: setattr(machine, "day", machine.day + timedelta(days=40))
    began = machine.now
    state = train(recipe, tmp_path / "run", machine, *overrides)
    assert state["deadline"]["until"] == "2026-03-02T00:03:00+00:00"
    assert 0.9 * 3900 <= machine.now - began - STARTING <= 3900
    check(tmp_path / "run")


@pytest.mark.parametrize("saved", [True, False])
def test_going_on_after_the_time_is_over(
    recipe: Path, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    cut(machine, 12 if saved else 3)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", machine, "train.max_minutes=null", "train.finish_by=23:01")
    machine.spend(3600.0)
    if saved:
        state = train(recipe, tmp_path / "run", machine)
        assert state["steps"] == 11
        assert any("the time is over (by 23:01): one more step" in text for text in machine.said)
        assert state["deadline"]["until"] == "2026-03-01T23:01:00+00:00"
        check(tmp_path / "run")
    else:
        with pytest.raises(RecipeError, match=r"train\.finish_by: the time is over .* another --run-dir"):
            train(recipe, tmp_path / "run", machine)


@pytest.mark.parametrize(
    ("minutes", "found"), [("0.2", "not a single step"), ("0.5", "about 1 steps, and 2 are warm-up")]
)
def test_too_little_time_is_said_with_the_cure(
    recipe: Path, tmp_path: Path, machine: Machine, minutes: str, found: str
) -> None:
    with pytest.raises(RecipeError, match=rf"train\.max_minutes: there is time for {found}") as error:
        train(recipe, tmp_path / "run", machine, f"train.max_minutes={minutes}")
    assert "allow 0." in error.value.problems[0].cure
    assert not (tmp_path / "run/metrics.jsonl").exists() or not lines(tmp_path / "run")


@pytest.mark.parametrize("damage", ["gone", "cut", "another", "edited"])
def test_a_damaged_record_is_refused(recipe: Path, tmp_path: Path, machine: Machine, damage: str) -> None:
    cut(machine, 12)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", machine)
    path = RunDir(tmp_path / "run").deadline
    content = json.loads(path.read_text())
    match damage:
        case "gone":
            path.unlink()
        case "cut":
            path.write_text("{")
        case "another":
            path.write_text(json.dumps(content | {"decisions": [{"after": 3}]}))
        case "edited":
            content["decisions"][0]["steps"] += 1
            path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"deadline\.json"):
        train(recipe, tmp_path / "run", machine)


def test_ctrl_c_says_what_is_planned_now(recipe: Path, tmp_path: Path, machine: Machine) -> None:
    import os
    import signal

    machine.at[3] = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(InterruptedRunError, match=r"stopped after step 3 of \d\d,"):
        train(recipe, tmp_path / "run", machine)
    train(recipe, tmp_path / "run", machine)
    check(tmp_path / "run")
