"""How many steps there is time for: the solver alone, against steady, slow, quick and sleeping machines."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_kit.recipe.schema import LARGEST, TrainSpec
from lora_kit.train.deadline import Pace, Timetable
from lora_kit.train.plan import TrainPlan, Turn

TOKENS = 100
ENDING, SAVING, VALIDATION = 5.0, 0.5, 2.0


def plan(**spec: object) -> TrainPlan:
    return TrainPlan(1, 1000, True, TrainSpec(max_minutes=1, **spec))  # type: ignore[arg-type]


def timetable(pace: float, **spec: object) -> Timetable:
    spec = {"validate_every": 10, "save_every": 10} | spec
    return Timetable(plan(**spec), lambda _: TOKENS, TOKENS, pace, VALIDATION, SAVING, ENDING)


def drive(allotted: float, speed: Callable[[int], float]) -> tuple[float, int, int]:
    """Run a clock through a whole run; seconds of each step from ``speed``. Returns end, steps, re-plans."""
    clock, step, replans = 3.0, 0, 0
    pace = Pace(speed(1) / TOKENS * 1.3)
    table = timetable(pace.seconds)
    steps = table.fitting(0, allotted - clock - table.margin(allotted), LARGEST)
    while step < steps:
        step += 1
        clock += speed(step)
        pace.add(TOKENS, speed(step))
        table = timetable(pace.seconds)
        margin = table.margin(allotted)
        found = table.changed(step, steps, allotted - clock - margin, margin, LARGEST)
        replans += found != steps
        steps = found
        clock += VALIDATION * (step % 10 == 0 or step == steps) + SAVING * (step % 10 == 0 or step == steps)
    return clock + ENDING, step, replans


MACHINES: dict[str, Callable[[int], float]] = {
    "steady": lambda _: 3.0,
    "slows down": lambda step: 2.0 + step / 40,
    "speeds up": lambda step: 6.0 - min(step, 60) / 15,
    "half speed from step 30": lambda step: 2.0 if step < 30 else 4.0,
    "double speed from step 30": lambda step: 4.0 if step < 30 else 2.0,
    "restless": lambda step: 3.0 + (step * 7919 % 13 - 6) / 6,
    "short steps": lambda step: 0.05 + (step % 3) / 100,
}


@pytest.mark.parametrize("machine", MACHINES)
def test_it_ends_in_time_and_uses_it(machine: str) -> None:
    for allotted in (240.0, 900.0):
        end, _, replans = drive(allotted, MACHINES[machine])
        assert 0.9 * allotted <= end <= allotted
        assert replans <= 18


def test_a_pause_is_made_up_for() -> None:
    end, steps, _ = drive(7200.0, lambda step: 3600.0 if step == 20 else 3.0)
    assert 0.9 * 7200 <= end <= 7200
    assert steps > 900  # an hour of work: the pause was not taken for the machine's speed


def test_a_pause_beyond_the_end_stops_at_once() -> None:
    end, steps, _ = drive(240.0, lambda step: 3600.0 if step == 20 else 3.0)
    assert steps == 20
    assert end < 3600 + 75


def test_the_most_steps_are_kept() -> None:
    table = timetable(0.01)
    assert table.fitting(0, 1000.0, 7) == 7
    assert table.changed(3, 7, 1000.0, 1.0, 7) == 7


def test_two_slow_steps_are_a_speed_one_is_a_pause() -> None:
    pace = Pace(9.0)
    assert pace.seconds == 9.0
    for _ in range(5):
        pace.add(100, 1.0)
    pace.add(100, 50.0)
    assert pace.seconds == pytest.approx(0.01)
    pace.add(100, 50.0)
    assert pace.seconds == pytest.approx(0.5)


@settings(max_examples=40, deadline=None)
@given(
    done=st.integers(0, 300),
    available=st.floats(0, 2000),
    pace=st.floats(1e-4, 0.1),
    most=st.integers(1, 3000),
    every=st.integers(1, 50),
)
def test_what_fits_fits_and_one_more_does_not(
    done: int, available: float, pace: float, most: int, every: int
) -> None:
    table = timetable(pace, validate_every=every, save_every=2 * every)
    steps = table.fitting(done, available, most)
    assert done <= steps <= max(done, most)
    assert steps == done or table.seconds(done, steps) <= available
    assert steps >= most or table.seconds(done, steps + 1) > available


@settings(max_examples=60, deadline=None)
@given(
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
    warmup=st.integers(0, 12),
    ends=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40)), min_size=1, max_size=5),
)
def test_the_rate_never_jumps(schedule: str, warmup: int, ends: list[tuple[int, int]]) -> None:
    """Where the number of steps changes, the next step has the rate it would have had, and 0 is the end."""
    turns, after = [Turn(0, warmup + ends[0][1] + 1)], 0
    for gap, rest in ends[1:]:
        after = min(after + gap, turns[-1].steps - 1)
        turns.append(Turn(after, after + rest))
    base = plan(schedule=schedule, warmup_steps=warmup, learning_rate=1e-3)
    for count in range(1, len(turns)):
        before, now = base.turned((*turns[:count],)), base.turned((*turns[: count + 1],))
        at = turns[count].after
        assert now.learning_rate(at + 1) == pytest.approx(before.learning_rate(at + 1))
        assert [now.learning_rate(step) for step in range(1, at + 1)] == [
            before.learning_rate(step) for step in range(1, at + 1)
        ]
    whole = base.turned((*turns,))
    rates = [whole.learning_rate(step) for step in range(1, whole.steps + 1)]
    assert all(0 < rate <= 1e-3 * (1 + 1e-9) for rate in rates)
    if schedule != "constant" and whole.steps > warmup + 1:
        assert whole.learning_rate(whole.steps + 1) == pytest.approx(0.0, abs=1e-9)


def test_without_turns_nothing_is_different() -> None:
    plain = TrainPlan(36, 100, False, TrainSpec(warmup_steps=4, learning_rate=1e-3))
    one = plain.turned((Turn(0, 36),))
    assert [plain.learning_rate(s) for s in range(1, 37)] == [one.learning_rate(s) for s in range(1, 37)]
