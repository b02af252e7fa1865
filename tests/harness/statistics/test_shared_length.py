import numpy as np
import pytest

from lora_kit.harness.statistics.shared_length import PairRows, shared_length


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def made(strengths, *, taste: float, shift: float = 0.0, prompts: int = 400, seed: int = 0) -> PairRows:
    """Judgments of a judge with a taste for length; the first of pair 0 is ``shift`` longer throughout."""
    generator = np.random.default_rng(seed)
    rows = []
    for pair, strength in enumerate(strengths):
        gap = generator.normal(shift if pair == 0 else 0.0, 1.0, prompts)
        chance = sigmoid(taste * np.tanh(gap) + strength)
        share = generator.binomial(4, chance) / 4
        rows += list(zip([pair] * prompts, 300 * gap, share, [4.0] * prompts, range(prompts), strict=True))
    pair, gap, share, weight, cluster = (np.array(column) for column in zip(*rows, strict=True))
    return PairRows(pair, gap, share, weight, cluster)


def test_length_is_taken_out_and_quality_stays():
    truth = (0.0, 0.8, -0.5)
    rows = made(truth, taste=1.5, shift=1.0)
    fit = shared_length(rows, samples=100, seed=0)
    raw = [100 * rows.share[rows.pair == k].mean() for k in range(3)]
    assert raw[0] > 62.0  # longer, no better
    assert fit.win_rate == pytest.approx(100 * sigmoid(np.array(truth)), abs=4.0)
    low, high = np.quantile(fit.win_rate_draws, [0.025, 0.975], axis=0)
    assert (low < fit.win_rate).all()
    assert (fit.win_rate < high).all()
    assert np.quantile(fit.taste_draws, 0.025) > 0.5


def test_the_fit_is_the_maximum_of_the_penalised_likelihood():
    rows = made((0.3, -0.7), taste=-0.8, prompts=50)
    fit = shared_length(rows, samples=2, seed=0)
    gap = np.tanh(rows.length_gap / np.sqrt(np.mean(rows.length_gap**2)))

    def loss(taste, strengths):
        logit = taste * gap + strengths[rows.pair]
        data = np.sum(rows.weight * (np.logaddexp(0, logit) - rows.share * logit))
        prior = sum(np.logaddexp(0, value) - value / 2 for value in (taste, *strengths))
        return data + prior

    strengths = np.log(fit.win_rate / (100 - fit.win_rate))
    best = loss(fit.taste, strengths)
    for step in (1e-3, -1e-3):
        assert loss(fit.taste + step, strengths) > best
        assert loss(fit.taste, strengths + np.array([step, 0])) > best
        assert loss(fit.taste, strengths + np.array([0, step])) > best


def test_swapping_a_pair_mirrors_its_win_rate():
    rows = made((0.3, -0.7), taste=1.0, prompts=60)
    swapped = PairRows(rows.pair, -rows.length_gap, 1.0 - rows.share, rows.weight, rows.clusters)
    there, back = shared_length(rows, samples=5, seed=0), shared_length(swapped, samples=5, seed=0)
    assert there.taste == pytest.approx(back.taste)
    assert there.win_rate + back.win_rate == pytest.approx([100.0, 100.0])


def test_equal_lengths_and_clean_sweeps_stay_finite():
    count = 20
    rows = PairRows(
        np.zeros(count, np.int64),
        np.zeros(count),
        np.ones(count),
        np.ones(count),
        np.arange(count),
    )
    fit = shared_length(rows, samples=20, seed=0)
    assert fit.taste == pytest.approx(0.0)
    assert 95.0 < fit.win_rate[0] < 100.0
    assert np.isfinite(fit.win_rate_draws).all()


def test_resamples_are_of_clusters_and_the_same_in_blocks(monkeypatch):
    rows = made((0.3,), taste=0.0, prompts=40)
    whole = shared_length(rows, samples=50, seed=1)
    monkeypatch.setattr("lora_kit.harness.statistics.shared_length._BLOCK_CELLS", 40 * 7)
    assert shared_length(rows, samples=50, seed=1).win_rate_draws == pytest.approx(whole.win_rate_draws)
    one = PairRows(rows.pair, rows.length_gap, rows.share, rows.weight, np.zeros(40, np.int64))
    assert np.ptp(shared_length(one, samples=20, seed=0).win_rate_draws) < 1e-6
