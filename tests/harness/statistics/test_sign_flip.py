import itertools

import numpy as np
import pytest

from lora_kit.harness.statistics import sign_flip
from lora_kit.harness.statistics.bootstrap import percentile_interval, resample_sums
from lora_kit.harness.statistics.sign_flip import sign_flip_p


def by_hand(pulls: np.ndarray) -> float:
    sums = [abs(np.dot(signs, pulls)) for signs in itertools.product((1, -1), repeat=len(pulls))]
    return float(np.mean(np.array(sums) >= abs(pulls.sum()) - 1e-9))


@pytest.mark.parametrize("seed", range(4))
def test_few_clusters_are_tossed_in_every_way(seed):
    pulls = np.random.default_rng(seed).normal(0.5, 1.0, 9)
    assert sign_flip_p(pulls, samples=1, seed=0) == by_hand(pulls)


def test_many_clusters_are_tossed_at_random_and_reproducibly(monkeypatch):
    pulls = np.random.default_rng(1).normal(0.4, 1.0, 16)
    found = sign_flip_p(pulls, samples=20_000, seed=3)
    assert found == pytest.approx(by_hand(pulls), abs=0.01)
    assert found == sign_flip_p(pulls, samples=20_000, seed=3)
    monkeypatch.setattr(sign_flip, "_BLOCK_CELLS", 16 * 999)
    assert sign_flip_p(pulls, samples=20_000, seed=3) == pytest.approx(found, abs=0.01)


def test_ties_say_nothing():
    assert sign_flip_p(np.zeros(5), samples=10, seed=0) == 1.0
    assert sign_flip_p(np.zeros(0), samples=10, seed=0) == 1.0
    few = np.array([1.0] * 4 + [0.0] * 76)
    assert sign_flip_p(few, samples=10, seed=0) == 2 / 2**4
    nearly = few + np.where(few == 0.0, 1e-17, 0.0)
    assert sign_flip_p(nearly, samples=10, seed=0) == 2 / 2**4
    low, _ = percentile_interval(resample_sums(few[:, None], samples=4000, seed=0)[:, 0])
    assert low > 0.0  # what the bootstrap alone would call a finding


def test_certainty_ends_at_the_number_of_tosses():
    assert sign_flip_p(np.ones(500), samples=999, seed=0) == 1 / 1000
