"""The plan: windows, rates and saves are pure functions of recipe and row count."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.errors import RecipeError
from lora_kit.recipe.schema import TrainSpec
from lora_kit.train.plan import plan_training


@given(rows=st.integers(1, 60), batch=st.integers(1, 20), epochs=st.integers(1, 3), seed=st.integers(0, 5))
def test_every_epoch_holds_every_row_once(rows: int, batch: int, epochs: int, seed: int) -> None:
    plan = plan_training(
        TrainSpec(batch_size=batch, epochs=epochs, seed=seed), rows=rows, has_validation=False
    )
    assert plan.steps == math.ceil(rows / batch) * epochs
    seen: dict[int, list[int]] = {}
    for step in range(1, plan.steps + 1):
        window = plan.window(step)
        assert 1 <= len(window.rows) <= batch
        seen.setdefault(window.epoch, []).extend(window.rows)
    assert all(sorted(order) == list(range(rows)) for order in seen.values())
    assert len(seen) == epochs


def test_steps_may_end_in_the_middle_of_an_epoch() -> None:
    plan = plan_training(TrainSpec(batch_size=4, steps=7), rows=10, has_validation=False)
    assert [plan.window(step).epoch for step in range(1, 8)] == [0, 0, 0, 1, 1, 1, 2]


def test_epochs_differ_in_order_and_seeds_too() -> None:
    one = plan_training(TrainSpec(batch_size=50, epochs=2), rows=50, has_validation=False)
    other = plan_training(TrainSpec(batch_size=50, epochs=2, seed=1), rows=50, has_validation=False)
    assert one.window(1).rows != one.window(2).rows
    assert one.window(1).rows != other.window(1).rows


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_learning_rate(schedule: str, expected: list[float]) -> None:
    spec = TrainSpec(steps=6, warmup_steps=2, learning_rate=1.0, schedule=schedule)
    plan = plan_training(spec, rows=100, has_validation=False)
    assert [plan.learning_rate(step) for step in range(1, 7)] == pytest.approx(expected, abs=1e-6)


def test_saves_where_the_best_checkpoint_may_be() -> None:
    spec = TrainSpec(steps=10, save_every=4, validate_every=3)
    plan = plan_training(spec, rows=100, has_validation=True)
    assert [s for s in range(1, 11) if plan.validates(s)] == [3, 6, 9, 10]
    assert [s for s in range(1, 11) if plan.saves(s)] == [3, 4, 6, 8, 9, 10]
    without = plan_training(spec, rows=100, has_validation=False)
    assert [s for s in range(1, 11) if without.saves(s)] == [4, 8, 10]


def test_dropout_seeds_differ_by_step_process_and_seed() -> None:
    plan = plan_training(TrainSpec(steps=9), rows=10, has_validation=False)
    other = plan_training(TrainSpec(steps=9, seed=1), rows=10, has_validation=False)
    seeds = {
        plan.dropout_seed(1, 0),
        plan.dropout_seed(2, 0),
        plan.dropout_seed(1, 1),
        other.dropout_seed(1, 0),
    }
    assert len(seeds) == 4


def test_a_warm_up_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(RecipeError, match="9 warm-up steps, but the run has only 3 steps"):
        plan_training(TrainSpec(epochs=1, warmup_steps=9), rows=24, has_validation=False)
