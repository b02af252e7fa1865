import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_kit.harness.statistics import bootstrap
from lora_kit.harness.statistics.bootstrap import (
    cluster_sums,
    percentile_interval,
    resample_sums,
    two_sided_p,
)


def test_rows_of_a_cluster_are_added_up():
    columns = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    assert cluster_sums(columns, ["b", "a", "b"]).tolist() == [[5.0, 50.0], [2.0, 20.0]]


def test_every_draw_has_as_many_clusters_as_there_are():
    draws = resample_sums(np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]]), samples=500, seed=3)
    assert draws.shape == (500, 2)
    assert (draws[:, 1] == 3.0).all()
    possible = {float(sum(c)) for c in itertools.combinations_with_replacement([1.0, 2.0, 4.0], 3)}
    assert set(draws[:, 0]) == possible


def test_the_distribution_is_the_exact_one():
    values = np.array([0.0, 1.0, 5.0])
    exact = [sum(c) for c in itertools.product(values, repeat=3)]
    draws = resample_sums(values[:, None], samples=200_000, seed=0)[:, 0]
    for total in set(exact):
        assert np.mean(draws == total) == pytest.approx(exact.count(total) / 27, abs=0.005)


def test_a_seed_is_a_result_and_blocks_do_not_change_it(monkeypatch):
    sums = np.random.default_rng(1).normal(size=(7, 2))
    whole = resample_sums(sums, samples=101, seed=5)
    assert np.array_equal(whole, resample_sums(sums, samples=101, seed=5))
    assert not np.array_equal(whole, resample_sums(sums, samples=101, seed=6))
    monkeypatch.setattr(bootstrap, "_BLOCK_CELLS", 70)
    np.testing.assert_allclose(resample_sums(sums, samples=101, seed=5), whole, atol=1e-12)


def test_the_interval_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    numerator, denominator = generator.gamma(2.0, 5.0, 60), generator.integers(5, 50, 60).astype(float)
    draws = resample_sums(np.column_stack([numerator, denominator]), samples=10_000, seed=1)
    ours = percentile_interval(draws[:, 0] / draws[:, 1])
    theirs = stats.bootstrap(
        (numerator, denominator),
        lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(2),
    )
    width = ours[1] - ours[0]
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.05 * width)
    assert np.std(draws[:, 0] / draws[:, 1], ddof=1) == pytest.approx(theirs.standard_error, rel=0.05)


def test_p_is_twice_the_smaller_tail():
    assert two_sided_p(np.array([-1.0, 1.0, 2.0, 3.0])) == 0.5
    assert two_sided_p(np.array([1.0, 2.0])) == 0.0
    assert two_sided_p(np.array([0.0, 0.0])) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 50)), min_size=1, max_size=8))
def test_draws_stay_between_the_extremes(rows):
    sums = np.array(rows, dtype=float)
    draws = resample_sums(sums, samples=50, seed=0)
    ratios = draws[:, 0] / draws[:, 1]
    single = sums[:, 0] / sums[:, 1]
    assert (ratios >= single.min() - 1e-9).all()
    assert (ratios <= single.max() + 1e-9).all()
