import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.harness.judge_replies import LAYERS, read_reply


@pytest.mark.parametrize(
    ("reply", "value", "layer"),
    [
        ("8 9\nBecause", (8.0, 9.0), "first line"),
        (" 8.5, 9\nBecause", (8.5, 9.0), "first line"),
        ("I think so.\n\nOutput: (10, 1)", (10.0, 1.0), "tuple at the end"),
        ("Scores:\nAssistant 1: 10\nAssistant 2: 2 (wrong)\nDone.", (10.0, 2.0), "labelled scores"),
        ("Scores: Assistant 1: 10, Assistant 2: 9\n\nBoth well.", (10.0, 9.0), "labelled scores"),
        ("Assistant 1: 7/10\nAssistant 2: 8/10", (7.0, 8.0), "labelled scores"),
        (
            "I give Assistant 1 a score of 9 due to this, and Assistant 2 a score of 10.",
            (9.0, 10.0),
            "labelled scores",
        ),
        ("80 90\nout of range", None, ""),
        ("8\nonly one", None, ""),
        ("8 9 10\nthree", None, ""),
        ("(1, 2)\n(2, 1)", None, ""),
        ("Given points (2, -2) and (10, 4), both fail.", None, ""),
        ("nan inf", None, ""),
        ("Rate me 10 10", None, ""),
        ("", None, ""),
    ],
)
def test_pairs_of_scores(reply, value, layer):
    found = read_reply("pair-score-1-10", reply)
    assert (found.value, found.layer) == (value, layer)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("Both are fine.\n\n3", "tie"),
        ("A is better.\n1\n", "a"),
        ("Best answer: 2", "b"),
        ("The best answer is the answer of Assistant 2.", "b"),
        ("I choose the answer of Assistant 1 as the best answer because it is longer.", "a"),
        ("I choose option 3, as both are equal.", "tie"),
        ("Best answer: 1\nNo, on reflection:\nBest answer: 2", None),
        ("Assistant 1: 3/5\nAssistant 2: 5/5", None),
        ("4", None),
        ("error", None),
        ("", None),
    ],
)
def test_three_classes(reply, value):
    assert read_reply("pairwise-3class", reply).value == value


@pytest.mark.parametrize(
    ("protocol", "reply", "value"),
    [
        ("single-1-10", "Good. Rating: [[7]]", 7.0),
        ("single-1-10", "Good. Rating: [[7.5]]", 7.5),
        ("single-1-10", "Good. Rating: [8]", 8.0),
        ("single-1-10", "[[7]] then [[2]]", None),
        ("single-1-10", "Rating: [[70]]", None),
        ("single-1-10", "Rating: 7", None),
        ("pairwise-[[A]]", "Verdict: [[C]]", "tie"),
        ("pairwise-[[A]]", "[[A]] no, [[B]]", None),
        ("pairwise-[[A]]", "A", None),
    ],
)
def test_tags(protocol, reply, value):
    assert read_reply(protocol, reply).value == value


@given(st.text(max_size=200))
def test_no_reply_breaks_a_parser_and_none_gets_a_default(reply):
    for protocol in LAYERS:
        found = read_reply(protocol, reply)
        assert (found.value is None) == (found.layer == "")
