import pytest

from lora_kit.harness.statistics.agreement import (
    Record,
    cohen_kappa,
    head_to_head,
    longer_wins,
    position_bias,
    reconciled,
)
from lora_kit.harness.statistics.matches import Duel

# item: verdict with x first, verdict with y first (in the order of showing)
BOTH = {
    "1": ("a", "b"),
    "2": ("a", "a"),
    "3": ("b", "b"),
    "4": ("tie", "a"),
    "5": ("tie", "tie"),
    "6": (None, "a"),
}
DUELS = [
    duel
    for item, (there, back) in BOTH.items()
    for duel in (Duel(item, "x", "y", there), Duel(item, "y", "x", back))
]


def test_kappa_by_hand():
    assert cohen_kappa([[20, 5], [10, 15]]) == pytest.approx(0.4)
    assert cohen_kappa([[5, 0], [0, 5]]) == 1.0
    assert cohen_kappa([[5, 5], [5, 5]]) == 0.0


def test_position_bias_counts_pairs():
    found = position_bias(DUELS[::-1])
    assert (found.pairs, found.both_parsed) == (6, 5)
    assert (found.consistent, found.first_in_both, found.second_in_both, found.tie_in_one_order) == (
        2,
        1,
        1,
        1,
    )


def test_a_win_needs_both_orders():
    assert reconciled(DUELS) == {"x": Record(1, 4, 0), "y": Record(0, 4, 1)}
    assert reconciled(DUELS)["x"].win_rate_adjusted == pytest.approx(0.6)


def test_records_of_pairs_are_over_both_orders():
    found = head_to_head(DUELS)
    assert found["x", "y"] == {"win": 4, "tie": 3, "loss": 4, "unparsed": 1}
    assert found["y", "x"] == {"win": 4, "tie": 3, "loss": 4, "unparsed": 1}


def test_length_bias_is_over_decisive_verdicts_of_unequal_length():
    lengths = {("x", "1"): 5, ("y", "1"): 9, ("x", "2"): 3, ("y", "2"): 3}
    duels = [
        Duel("1", "x", "y", "b"),
        Duel("1", "y", "x", "b"),
        Duel("2", "x", "y", "a"),
        Duel("1", "x", "y", "tie"),
    ]
    assert longer_wins(duels, lambda player, item: lengths[player, item]) == (1, 2)
