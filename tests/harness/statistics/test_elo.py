import numpy as np
import pytest

from lora_kit.harness.statistics import elo
from lora_kit.harness.statistics.elo import EloRules, elo_ratings
from lora_kit.harness.statistics.matches import Duel, matches_of


def tournament(count: int = 60) -> list[Duel]:
    generator = np.random.default_rng(0)
    names = ["x", "y", "z"]
    duels = []
    for item in range(count):
        a, b = generator.choice(names, 2, replace=False)
        duels.append(Duel(str(item % 20), str(a), str(b), ["a", "b", "tie"][generator.integers(3)]))
    return duels


def one_by_one(duels: list[Duel], order, k: float = 32.0) -> dict[str, float]:
    """The loop of the paper."""
    ratings = dict.fromkeys(("x", "y", "z"), 1000.0)
    for at in order:
        duel = duels[at]
        expected = 1 / (1 + 10 ** ((ratings[duel.b] - ratings[duel.a]) / 400))
        gain = k * ({"a": 1, "tie": 0.5, "b": 0}[duel.verdict] - expected)
        ratings[duel.a] += gain
        ratings[duel.b] -= gain
    return ratings


def test_all_orders_at_once_are_the_loop_of_the_paper(monkeypatch):
    duels = tournament()
    orders = np.array([np.random.default_rng(s).permutation(60) for s in range(5)])
    monkeypatch.setattr(elo, "_orders", lambda *_: orders)
    found = elo_ratings(matches_of(duels), EloRules(orders=5))
    loops = [one_by_one(duels, order) for order in orders]
    for name in "xyz":
        assert found[name].mean == pytest.approx(np.mean([ratings[name] for ratings in loops]), abs=1e-9)
        assert found[name].sd == pytest.approx(np.std([ratings[name] for ratings in loops], ddof=1), abs=1e-9)


def test_elo_is_zero_sum_seeded_and_the_same_in_blocks(monkeypatch):
    matches = matches_of(tournament())
    whole = elo_ratings(matches, EloRules(orders=300, seed=4))
    assert sum(rating.mean for rating in whole.values()) == pytest.approx(3000)
    assert whole == elo_ratings(matches, EloRules(orders=300, seed=4))
    monkeypatch.setattr(elo, "_BLOCK_CELLS", 60 * 70)
    blocks = elo_ratings(matches, EloRules(orders=300, seed=4))
    assert blocks["x"].mean == pytest.approx(whole["x"].mean, abs=6 * whole["x"].error_of_mean)


def test_an_order_may_draw_matches():
    found = elo_ratings(matches_of(tournament()), EloRules(orders=50, drawn=1))
    assert found["x"].high <= 1016.0


def test_unparsed_verdicts_are_no_matches():
    duels = [Duel("1", "x", "y", None), Duel("2", "x", "y", "a")]
    assert len(matches_of(duels).points) == 1
