import pytest

from lora_kit.harness.judge_replies import read_reply


@pytest.mark.parametrize(
    ("protocol", "reply", "value"),
    [
        ("pair-score-1-10", '{"score_a": 8, "score_b": 9.5}', (8.0, 9.5)),
        ("pair-score-1-10", '```json\n{"score_a": 8, "score_b": 9}\n```', (8.0, 9.0)),
        ("pair-score-1-10", 'Sure! {"score_a": 8, "score_b": 9}', None),
        ("pair-score-1-10", '{"score_a": 8, "score_a": 2, "score_b": 9}', None),
        ("pair-score-1-10", '{"score_a": 80, "score_b": 9}', None),
        ("pair-score-1-10", '{"score_a": true, "score_b": 9}', None),
        ("pair-score-1-10", '{"score_a": 8}', None),
        ("pair-score-1-10", "Explanation.\n[[8,9]]", (8.0, 9.0)),
        ("pair-score-1-10", "[[8,9]] or rather [[9,8]]", None),
        ("pairwise-3class", '{"winner": "A"}', "a"),
        ("pairwise-3class", '{"winner": "tie"}', "tie"),
        ("pairwise-3class", '{"winner": "both"}', None),
        ("pairwise-3class", "Explanation.\n[[B]]", "b"),
        ("pairwise-3class", "Answer 1 says [[A]].\n\nIt lies.\nSo it loses.\nBy far.\n2", "b"),
        ("single-1-10", '{"rating": 7}', 7.0),
        ("single-1-10", '{"rating": 7, "score": 3}', None),
        ("single-1-10", '{"rating": "7"}', None),
    ],
)
def test_json_and_tags(protocol, reply, value):
    assert read_reply(protocol, reply).value == value
