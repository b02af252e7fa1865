"""The cost model: finds the machine that the timings are from, and nothing negative."""

import pytest

from lora_kit.planning.cost import ATTENTION, CostModel, Timed, combined, fit, of_rate
from lora_kit.planning.flops import Flops
from lora_kit.planning.work import Work

FLOPS = Flops(token=5e8, target=1e8, cell=2e5, forward=0.5)
MACHINE = CostModel(step=0.05, batch=0.2, flop=1.5e-11, attention=3e-11)


def timed(work: Work, machine: CostModel = MACHINE) -> Timed:
    return Timed("", work, machine.seconds(work, FLOPS))


def batch(rows: int, tokens: int, steps: float = 0) -> Work:
    return Work(steps, 1, rows * tokens, rows * tokens // 2, rows * tokens * tokens / 2)


THREE = [timed(batch(1, 60)), timed(batch(4, 110)), timed(batch(2, 250))]


def test_a_whole_run_is_predicted_from_three_timings_and_two_steps() -> None:
    found = fit([*THREE, timed(batch(4, 100, 1)), timed(batch(3, 150, 1))], FLOPS)
    run = Work(400, 900, 200_000, 90_000, 25_000_000)
    assert found.seconds(run, FLOPS) == pytest.approx(MACHINE.seconds(run, FLOPS), rel=0.02)
    assert found.error < 0.01


def test_long_rows_cost_more_than_their_tokens() -> None:
    found = fit(THREE, FLOPS)
    long, short = found.seconds(batch(1, 4096), FLOPS), found.seconds(batch(64, 64), FLOPS)
    assert long > short + 0.5 * (
        MACHINE.seconds(batch(1, 4096), FLOPS) - MACHINE.seconds(batch(64, 64), FLOPS)
    )


def test_one_timing_gives_a_rate_and_holds_attention_to_it() -> None:
    found = fit(THREE[:1], FLOPS)
    assert min(found.step, found.batch, found.flop, found.attention) >= 0
    assert found.seconds(THREE[0].work, FLOPS) == pytest.approx(THREE[0].seconds, rel=0.05)


def test_noise_makes_no_cost_negative() -> None:
    noisy = [
        Timed("", one.work, one.seconds * factor) for one, factor in zip(THREE, (3, 0.5, 1), strict=True)
    ]
    found = fit(noisy, FLOPS)
    assert min(found.step, found.batch, found.flop, found.attention) >= 0
    assert found.error > 0.05


def test_a_rate_alone_is_a_model_too() -> None:
    model = of_rate(1e12, batch=0.1)
    work = Work(0, 2, 1000, 0, 0)
    assert model.seconds(work, FLOPS) == pytest.approx(0.2 + 1000 * 5e8 / 1e12)
    assert model.attention == ATTENTION * model.flop


def test_errors_that_know_nothing_of_each_other() -> None:
    assert combined(0.3, 0.4) == pytest.approx(0.5)
