import json

import pytest

from lora_kit.catalogue import JUDGES
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judging.asking import Judgment
from lora_kit.harness.judging.kind import Prompt, Showing
from lora_kit.harness.judging.summary import summarise


def judgments(kind, table):
    """``table``: item -> (system, other) with the system shown second, then first; None = not judged."""
    found = []
    for item, scores in table.items():
        prompt = Prompt(item, "", item, "Q")
        back, there = scores[:2], scores[2:]
        found.append(one(kind, Showing(prompt, ("ref", "sys"), ("r" * 9, "s")), back[::-1]))
        found.append(one(kind, Showing(prompt, ("sys", "ref"), ("s", "r" * 9)), there))
    return found


def one(kind, showing, scores):
    from lora_kit.harness.judging.kind import Ruling

    if None in scores:
        return Judgment(showing, None, (ChatReply("?"),), "no single verdict")
    return Judgment(showing, Ruling(tuple(map(float, scores)), "x"), (ChatReply("1"),))


def test_per_cent_of_the_reference_is_a_ratio_of_sums():
    table = {f"q{n}": (6, 8, 9, 8) for n in range(9)} | {"q9": (None, None, 1, 10)}
    found = summarise(JUDGES["pair_score"], judgments(JUDGES["pair_score"], table), "sys", "ref")
    relative = found["relative"]
    assert relative["reference_first"] == {
        "n": 9, "sum_sys": 54.0, "sum_ref": 72.0, "win": 0, "tie": 0, "loss": 9, "pct": 75.0
    }  # fmt: skip
    assert relative["system_first"]["n"] == 10
    assert relative["pooled"] == pytest.approx(100 * (54 + 82) / (72 + 82))
    assert relative["estimate"]["value"] == pytest.approx(relative["pooled"])
    assert relative["estimate"]["low"] < relative["pooled"] < relative["estimate"]["high"]
    assert relative["difference"]["difference"] == pytest.approx(relative["pooled"] - 100)
    assert relative["difference"]["verdict"] == "worse"


def test_win_rate_counts_ties_half_and_leaves_the_unjudged_out():
    table = {f"q{n}": (1, 0, 1, 0) for n in range(6)} | {"t": (0.5, 0.5, 1, 0), "u": (None, None, 0, 1)}
    preference = summarise(JUDGES["pairwise"], judgments(None, table), "sys", "ref")["preference"]
    assert (preference["win"], preference["tie"], preference["loss"]) == (13, 1, 1)
    assert preference["estimate"]["value"] == pytest.approx(100 * 13.5 / 15)
    assert preference["difference"]["verdict"] == "better"
    assert preference["both_orders_agree"] == {"win": 6, "tie": 1, "loss": 0}


def test_a_judge_that_only_sees_places_says_nothing():
    table = {f"q{n}": (0, 1, 1, 0) for n in range(10)}
    found = summarise(JUDGES["pairwise"], judgments(None, table), "sys", "ref")
    assert found["preference"]["estimate"]["value"] == 50.0
    assert found["preference"]["difference"]["verdict"] == "can't tell"
    assert found["bias"]["first_in_both"] == 1.0
    assert found["bias"]["consistent"] == 0.0


def test_length_bias():
    table = {f"q{n}": (0, 1, 0, 1) for n in range(6)}
    bias = summarise(JUDGES["pairwise"], judgments(None, table), "sys", "ref")["bias"]
    assert bias["longer_wins"] == 1.0
    assert (bias["mean_length_of_system"], bias["mean_length_of_other"]) == (1.0, 9.0)


def test_a_clear_verdict_counts_three_times():
    from lora_kit.harness.judging.kind import Ruling

    prompt = Prompt("q", "", "q", "Q")
    weights = [(1.0, 0.0, 3.0), (0.0, 1.0, 1.0)]
    rows = [
        Judgment(Showing(prompt, ("sys", "ref"), ("s", "r")), Ruling((a, b), "x", w), ())
        for a, b, w in weights
    ]
    preference = summarise(JUDGES["five_level"], rows, "sys", "ref")["preference"]
    assert preference["estimate"]["value"] == 75.0


def test_grades_are_compared_where_both_have_one():
    from lora_kit.harness.judging.kind import Ruling

    def grade(item, player, score):
        ruling = None if score is None else Ruling((score,), "x")
        return Judgment(Showing(Prompt(item, "", item, "Q"), (player,), ("a",)), ruling, ())

    rows = [grade(f"q{n}", "sys", 8.0) for n in range(8)] + [grade(f"q{n}", "ref", 6.0) for n in range(7)]
    rows += [grade("q7", "ref", None), grade("q8", "sys", 2.0)]
    grades = summarise(JUDGES["single"], rows, "sys", "ref")["grades"]
    assert (grades["system"], grades["against"]) == (pytest.approx(66 / 9), 6.0)
    assert grades["difference"]["difference"] == 2.0
    assert grades["difference"]["verdict"] == "better"


@pytest.mark.parametrize("kind", list(JUDGES))
def test_nothing_judged_is_no_number_and_never_a_zero(kind):
    found = summarise(JUDGES[kind], [], "sys", "ref")
    text = json.dumps(found, allow_nan=False)
    values = [found[name]["estimate"] for name in ("relative", "preference", "grades") if name in found]
    assert values
    assert all(value is None for value in values)
    assert "NaN" not in text


def test_a_yardstick_without_points_measures_nothing():
    table = {f"q{n}": (6, 0, 9, 0) for n in range(3)}
    relative = summarise(JUDGES["pair_score"], judgments(None, table), "sys", "ref")["relative"]
    assert (relative["pooled"], relative["estimate"]) == (None, None)
