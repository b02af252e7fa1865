import math

from lora_kit.harness.statistics.turn_scores import TurnScore, last_of_each, turn_summary

ROWS = [
    TurnScore("1", "math", 1, 4.0),
    TurnScore("1", "math", 2, None),
    TurnScore("2", "writing", 1, 8.0),
    TurnScore("2", "writing", 2, 6.0),
    TurnScore("1", "math", 1, 2.0),
]


def test_unparsed_turns_are_left_out_of_means():
    found = turn_summary(ROWS[:4])
    assert (found.n, found.n_unparsed, found.turn1, found.turn2, found.average) == (4, 1, 6.0, 6.0, 6.0)
    assert found.by_category == {"math": 4.0, "writing": 7.0}


def test_a_second_run_replaces_the_first():
    assert [row.score for row in last_of_each(ROWS)] == [2.0, None, 8.0, 6.0]


def test_nothing_judged_is_no_score():
    assert math.isnan(turn_summary([]).average)
