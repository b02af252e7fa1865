import math

import numpy as np
import pytest

from lora_kit.harness.statistics.bradley_terry import bradley_terry
from lora_kit.harness.statistics.matches import Duel, matches_of


def duels(record: dict[tuple[str, str], tuple[int, int, int]]) -> list[Duel]:
    found = []
    for (a, b), counts in record.items():
        for verdict, count in zip(("a", "tie", "b"), counts, strict=True):
            found += [Duel(str(len(found) + n), a, b, verdict) for n in range(count)]
    return found


def test_two_players_have_a_closed_form():
    found = bradley_terry(matches_of(duels({("x", "y"): (6, 2, 2)})), samples=0)
    gap = 400 * math.log10(7 / 3)
    assert found["x"].rating == pytest.approx(1000 + gap / 2, abs=1e-4)
    assert found["y"].rating == pytest.approx(1000 - gap / 2, abs=1e-4)


def test_expected_points_equal_points_taken():
    record = {("x", "y"): (9, 3, 4), ("y", "z"): (7, 0, 5), ("z", "x"): (6, 2, 6)}
    found = bradley_terry(matches_of(duels(record)), samples=0)

    def beats(a: str, b: str) -> float:
        return 1 / (1 + 10 ** ((found[b].rating - found[a].rating) / 400))

    taken = dict.fromkeys("xyz", 0.0)
    expected = dict(taken)
    for (a, b), (wins, ties, losses) in record.items():
        total = wins + ties + losses
        taken[a] += wins + ties / 2
        taken[b] += losses + ties / 2
        expected[a] += total * beats(a, b)
        expected[b] += total * beats(b, a)
    assert expected == pytest.approx(taken, abs=1e-6)
    assert sum(rating.rating for rating in found.values()) == pytest.approx(3000)


def test_who_never_lost_has_a_finite_rating():
    found = bradley_terry(matches_of(duels({("x", "y"): (5, 0, 0)})), samples=20)
    assert math.isfinite(found["x"].rating)
    assert found["x"].rating > 1400
    assert found["y"].rating < 600


def test_the_interval_resamples_prompts_with_all_their_judgments():
    generator = np.random.default_rng(0)
    verdicts = [["a", "b"][generator.integers(2)] for _ in range(40)]
    once = [Duel(str(n), "x", "y", verdict) for n, verdict in enumerate(verdicts)]
    repeated = [duel for duel in once for _ in range(9)]
    alone = [Duel(f"{duel.item}-{n}", "x", "y", duel.verdict) for n, duel in enumerate(repeated)]
    widths = {}
    for name, chosen in (("once", once), ("repeated", repeated), ("alone", alone)):
        rating = bradley_terry(matches_of(chosen), samples=500)["x"]
        assert rating.low < rating.rating < rating.high
        widths[name] = rating.high - rating.low
    assert widths["repeated"] == pytest.approx(widths["once"], rel=0.01)
    assert widths["alone"] < widths["once"] / 2
