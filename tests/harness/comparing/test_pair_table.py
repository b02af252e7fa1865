"""The verdict on a pair: right about equals, and able to see what it says it can see."""

import numpy as np
import pytest

from lora_kit.harness.comparing.pair_table import pair_outcomes, rows_of_pair

COMPARISONS, SAMPLES = 200, 1000
MOST_FALSE = 0.05 + 2 * np.sqrt(0.05 * 0.95 / COMPARISONS)
ALL = [(0, 1), (0, 2), (1, 2)]


def verdicts(simulation, prompts: int, lead: float) -> list[tuple[str, float]]:
    """Verdict and smallest visible difference of each comparison."""
    generator = np.random.default_rng(11)
    found = []
    for seed in range(COMPARISONS):
        bouts = simulation.bouts(generator, prompts, {(0, 1): lead})
        outcome = pair_outcomes(bouts, [(0, 1)], samples=SAMPLES, seed=seed)[0, 1].difference
        found.append((outcome.verdict, outcome.smallest_visible or 0.0))
    return found


@pytest.mark.parametrize(
    ("ties", "first", "prompts"),
    [(0.2, 0.0, 80), (0.2, 0.15, 80), (0.1, 0.35, 80), (0.9, 0.03, 80), (0.2, 0.1, 12), (0.2, 0.1, 6)],
)
def test_a_model_against_itself_is_no_better_or_worse(simulation, ties, first, prompts):
    found = verdicts(simulation(ties=ties, first=first), prompts, 0.0)
    assert np.mean([verdict != "can't tell" for verdict, _ in found]) <= MOST_FALSE


@pytest.mark.parametrize(("ties", "first", "prompts"), [(0.2, 0.1, 80), (0.5, 0.1, 40), (0.2, 0.0, 16)])
def test_the_smallest_visible_difference_is_found(simulation, ties, first, prompts):
    judge = simulation(ties=ties, first=first)
    stated = np.median([visible for _, visible in verdicts(judge, prompts, 0.0)]) / 100.0
    found = verdicts(judge, prompts, stated)
    assert np.mean([verdict == "better" for verdict, _ in found]) >= 0.75
    assert not any(verdict == "worse" for verdict, _ in found)


def test_three_equals_get_no_verdict_between_them(simulation):
    generator, judge = np.random.default_rng(5), simulation(ties=0.2, first=0.1)
    any_verdict = 0
    for seed in range(COMPARISONS):
        bouts = judge.bouts(generator, 40, dict.fromkeys(ALL, 0.0))
        found = pair_outcomes(bouts, ALL, samples=SAMPLES, seed=seed)
        any_verdict += any(outcome.difference.verdict != "can't tell" for outcome in found.values())
    assert any_verdict / COMPARISONS <= MOST_FALSE


def test_several_pairs_share_the_error(simulation):
    bouts = simulation(ties=0.2, first=0.1).bouts(
        np.random.default_rng(2), 60, {(0, 1): 0.15, (0, 2): 0.3, (1, 2): 0.0}
    )
    alone = pair_outcomes(bouts, [(0, 1)], samples=4000, seed=0)[0, 1]
    among = pair_outcomes(bouts, ALL, samples=4000, seed=0)[0, 1]
    assert among.difference.p == alone.p_holm == alone.difference.p
    assert among.p_holm > among.difference.p
    assert among.difference.smallest_visible > alone.difference.smallest_visible
    assert (among.difference.low, among.difference.high) == (alone.difference.low, alone.difference.high)


def test_a_win_rate_is_that_of_the_first_in_both_orders(simulation):
    bouts = simulation(ties=0.0, first=0.0).bouts(np.random.default_rng(0), 30, {(0, 1): 0.5})
    there = pair_outcomes(bouts, [(0, 1)], samples=100, seed=0)[0, 1]
    back = pair_outcomes(bouts, [(1, 0)], samples=100, seed=0)[1, 0]
    assert (there.win_rate.value, back.win_rate.value) == (100.0, 0.0)
    assert (there.difference.verdict, back.difference.verdict) == ("better", "worse")
    assert there.win_rate.n == 30
    assert set(rows_of_pair(bouts, 1, 0)[1]) == {0.0}


def test_a_pair_of_which_nothing_was_judged_is_left_out_and_still_counts_as_a_test(simulation):
    bouts = simulation(ties=0.2, first=0.0).bouts(np.random.default_rng(0), 30, {(0, 1): 0.1})
    alone = pair_outcomes(bouts, [(0, 1)], samples=500, seed=0)
    found = pair_outcomes(bouts, ALL, samples=500, seed=0)
    assert list(found) == [(0, 1)]
    assert found[0, 1].difference.smallest_visible > alone[0, 1].difference.smallest_visible
