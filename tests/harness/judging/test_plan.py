import pytest

from lora_kit.catalogue import JUDGES
from lora_kit.errors import DataError
from lora_kit.harness.judging.kind import Prompt
from lora_kit.harness.judging.plan import plan_showings

PROMPTS = [Prompt(f"q{n}", "", f"q{n}", f"Question {n}", f"gold {n}") for n in range(40)]
ANSWERS = ({p.id: f"s {p.id}" for p in PROMPTS}, {p.id: f"r {p.id}" for p in PROMPTS})


def test_both_orders_show_each_answer_in_each_place():
    showings = plan_showings(JUDGES["pairwise"], PROMPTS, ("sys", "ref"), ANSWERS)
    places = {(s.prompt.id, s.players, s.answers) for s in showings}
    assert places == {
        (p.id, players, answers)
        for p in PROMPTS
        for players, answers in (
            (("sys", "ref"), (f"s {p.id}", f"r {p.id}")),
            (("ref", "sys"), (f"r {p.id}", f"s {p.id}")),
        )
    }


def test_one_order_is_mixed_and_the_same_each_time():
    showings = plan_showings(JUDGES["pairwise"], PROMPTS, ("sys", "ref"), ANSWERS, orders="one")
    first = [s.players[0] for s in showings]
    assert len(first) == 40
    assert 10 <= first.count("sys") <= 30
    assert showings == plan_showings(JUDGES["pairwise"], PROMPTS, ("sys", "ref"), ANSWERS, orders="one")


def test_a_kind_that_grades_shows_each_alone():
    showings = plan_showings(JUDGES["single"], PROMPTS[:2], ("sys", "ref"), ANSWERS)
    assert [s.players for s in showings] == [("sys",), ("ref",)] * 2


def test_the_reference_is_not_graded_beside_itself():
    gold = {p.id: p.gold for p in PROMPTS}
    showings = plan_showings(JUDGES["reference_guided"], PROMPTS, ("sys", "reference"), (ANSWERS[0], gold))
    assert {s.players for s in showings} == {("sys",)}


def test_a_kind_that_needs_references_says_where_they_are_missing():
    bare = [Prompt("q1", "", "q1", "Question")]
    with pytest.raises(DataError, match="q1: 'reference_guided' shows the suite's reference"):
        plan_showings(JUDGES["reference_guided"], bare, ("a", "b"), ({"q1": "x"}, {"q1": "y"}))
