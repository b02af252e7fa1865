import numpy as np
import pytest

from lora_kit.harness.statistics.length_control import (
    LengthRows,
    fit_logistic,
    length_controlled,
    standardised_gap,
    win_rate_at,
)


def made(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    features = np.column_stack(
        [np.tanh(generator.normal(size=count)), generator.normal(size=count), np.ones(count)]
    )
    chances = 1 / (1 + np.exp(-features @ np.array([-1.5, 0.7, 0.4])))
    return features, generator.binomial(1, chances).astype(float)


def loss(solution: np.ndarray, features: np.ndarray, labels: np.ndarray, penalty: float) -> float:
    logits = features @ solution
    return float(np.sum(np.logaddexp(0, logits) - labels * logits) + penalty * np.abs(solution).sum())


@pytest.mark.parametrize("penalty", [0.0, 0.3, 20.0, 1000.0])
def test_the_fit_is_the_minimum(penalty):
    features, labels = made()
    found = fit_logistic(features, labels, np.ones(len(labels)), penalty=penalty)
    best = loss(found, features, labels, penalty)
    for shift in np.random.default_rng(1).normal(scale=1e-3, size=(200, 3)):
        assert loss(found + shift, features, labels, penalty) >= best - 1e-9
    assert (found == 0).all() == (penalty == 1000.0)


def test_the_fit_is_scipys():
    optimize = pytest.importorskip("scipy.optimize")
    features, labels = made(seed=3)
    found = fit_logistic(features, labels, np.ones(len(labels)), penalty=0.0)
    theirs = optimize.minimize(loss, np.zeros(3), args=(features, labels, 0.0), method="BFGS", tol=1e-10)
    assert found == pytest.approx(theirs.x, abs=1e-4)


def test_a_judge_that_only_likes_length_finds_no_better_model():
    generator = np.random.default_rng(0)
    gap = generator.normal(-1.0, 1.0, 2000)  # the model writes more
    share = 1 / (1 + np.exp(2.0 * np.tanh(gap)))
    found = length_controlled(LengthRows(gap, np.zeros(2000), share))
    assert share.mean() > 0.65
    assert found.win_rate == pytest.approx(50.0, abs=0.1)


def test_a_baseline_against_itself_is_50():
    even = LengthRows(np.zeros(10), np.zeros(10), np.full(10, 0.5))
    assert length_controlled(even).win_rate == pytest.approx(50.0)
    assert win_rate_at((-2.0, 1.0, 0.0), np.zeros(5)).win_rate == 50.0


def test_anchors_hold_the_length_coefficient_where_lengths_never_vary():
    rows = LengthRows(np.zeros(50), np.zeros(50), np.full(50, 0.7))
    anchor = LengthRows(np.array([3.0, -3.0] * 50), np.zeros(100), np.array([0.1, 0.9] * 50))
    found = length_controlled(rows, anchor=anchor)
    assert found.coefficients[0] < -1.5
    assert found.win_rate == pytest.approx(70.0, abs=1e-4)


def test_gaps_are_in_standard_deviations():
    gap = standardised_gap(np.array([10.0, 20.0, 60.0]), np.array([5.0, 25.0, 30.0]))
    assert np.std(gap, ddof=1) == pytest.approx(1.0)
    assert gap[0] > 0 > gap[1]
    assert (standardised_gap(np.ones(3), np.ones(3)) == 0).all()
