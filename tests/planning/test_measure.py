"""Timing a job: what is timed, and what there is no time or memory for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from lora_kit.artifacts.run_dir import open_run
from lora_kit.data.collate import MicroBatch
from lora_kit.inputs import open_inputs
from lora_kit.model.base import find_base
from lora_kit.planning.case import Case
from lora_kit.planning.measure import HEAVIEST, MEDIAN, SHORTEST, Measured, Measurement
from lora_kit.recipe.load import load_recipe
from lora_kit.train.observe import Silent
from lora_kit.train.out_of_memory import NoRoomError
from lora_kit.train.step import Stepper
from lora_kit.train_run import build_job, open_model


@dataclass
class Clock:
    """A clock that only being read moves."""

    tick: float
    reads: Iterator[int]

    def __call__(self) -> float:
        return self.tick * next(self.reads)


@pytest.fixture
def measured(tiny_recipe: Callable[..., Path], tmp_path: Path) -> Callable[..., Measured]:
    """Measure the tiny recipe with a clock that moves so much at each look."""

    def measure(tick: float, enough: float = 28.0) -> Measured:
        recipe = load_recipe(tiny_recipe(), allow_outside=["/"])
        files = find_base(recipe.base)
        inputs = open_inputs(recipe, files)
        model = open_model(recipe, inputs.files)
        job = build_job(recipe, open_run(tmp_path / "run"), inputs, Silent(), model)
        case = Case(recipe, files.config, files.family, inputs.data.train, inputs.data.validation)
        clock = Clock(tick, count())
        return Measurement(job, case.flops(case.need()), 64, clock=clock, enough=enough).run()

    return measure


def test_with_time_everything_is_timed(measured: Callable[..., Measured]) -> None:
    found = measured(0.01)
    assert [one.what for one in found.timed] == [
        SHORTEST,
        MEDIAN,
        HEAVIEST,
        *(f"step {n}" for n in range(1, 7)),
    ]
    assert found.timed[0].work.tokens <= found.timed[1].work.tokens <= found.timed[2].work.tokens
    assert [one.work.steps for one in found.timed[3:]] == [1] * 6
    assert found.forward_share is not None
    assert found.save_seconds > 0
    assert not found.untimed


def test_without_time_there_is_the_shortest_row(measured: Callable[..., Measured]) -> None:
    found = measured(20.0)
    assert [one.what for one in found.timed] == [SHORTEST]
    assert found.untimed == [MEDIAN, HEAVIEST, "step 1"]
    assert found.forward_share is None


def test_what_does_not_fit_is_named_and_no_step_is_made(
    measured: Callable[..., Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearse = Stepper.rehearse
    sizes: list[int] = []

    def short(self: Stepper, batch: MicroBatch) -> None:
        sizes.append(batch.input_ids.numel())
        if len(sizes) == 4:  # twice the shortest, the median, the heaviest
            raise NoRoomError(batch)
        rehearse(self, batch)

    monkeypatch.setattr(Stepper, "rehearse", short)
    found = measured(0.01)
    assert [one.what for one in found.timed] == [SHORTEST, MEDIAN]
    assert found.no_room == sizes[3]


def test_not_even_a_row_fits(measured: Callable[..., Measured], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Stepper, batch: MicroBatch) -> None:
        raise NoRoomError(batch)

    monkeypatch.setattr(Stepper, "rehearse", none)
    found = measured(0.01)
    assert not found.timed
    assert found.no_room > 0
