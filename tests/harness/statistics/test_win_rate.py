import math

import pytest

from lora_kit.harness.statistics.win_rate import logprob_preference, shares, win_rate


def test_draws_and_failures():
    found = win_rate([1.0, 2.0, 1.5, 0.0, None, 1.9])
    assert (found.n_total, found.n_wins, found.n_wins_base, found.n_draws) == (5, 2, 1, 2)
    assert found.win_rate == pytest.approx(100 * (0 + 1 + 0.5 + 0.5 + 0.9) / 5)
    assert found.discrete_win_rate == 60.0
    assert shares([None, 0.0, 1.25]) == [None, 0.5, 0.25]


def test_the_standard_error_is_the_samples():
    assert win_rate([1.0, 2.0]).standard_error == pytest.approx(100 * math.sqrt(0.5) / math.sqrt(2))


def test_nothing_judged_is_no_rate():
    found = win_rate([None, None])
    assert found.n_total == 0
    assert math.isnan(found.win_rate)


@pytest.mark.parametrize(
    ("tokens", "shown", "expected"),
    [
        ({"m": math.log(0.2), "M": math.log(0.6)}, "second", 1.75),
        ({"m": math.log(0.2), "M": math.log(0.6)}, "first", 1.25),
        ({"M": -1.0, "The": -2.0}, "second", 2.0),
        ({"M": -1.0}, "first", 1.0),
        ({"The": -1.0}, "first", None),
        ({"m": -2000.0, "M": -2000.0}, "first", 1.5),
    ],
)
def test_log_probabilities(tokens, shown, expected):
    assert logprob_preference(tokens, model_shown=shown) == (
        None if expected is None else pytest.approx(expected)
    )
