import random
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_kit.data.near_duplicates import similarity, sketch
from lora_kit.data.split import (
    Candidate,
    Placed,
    Side,
    Splitter,
    content_key,
    expected_leaks,
    group_key,
    is_held_out,
    normalised,
    spoken,
)
from lora_kit.data.types import Conversation, Message

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MESSAGES = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT, TEXT, st.booleans())
CONVERSATIONS = st.builds(
    Conversation,
    st.lists(MESSAGES, min_size=1, max_size=4).map(tuple),
    st.just("f:1"),
    st.sampled_from(["", "g", "h"]),
)


def side(conversation: Conversation, fraction: float) -> bool:
    return is_held_out(
        group_key(conversation.group) if conversation.group else content_key(conversation), fraction
    )


@given(old=st.lists(CONVERSATIONS), new=st.lists(CONVERSATIONS), fraction=st.floats(0, 0.5))
def test_adding_rows_moves_no_old_row(old: list, new: list, fraction: float) -> None:
    before = [side(row, fraction) for row in old]
    after = [side(row, fraction) for row in [*new, *old]][len(new) :]
    assert after == before


@given(row=CONVERSATIONS, small=st.floats(0, 1), large=st.floats(0, 1))
def test_a_larger_share_keeps_the_rows_of_a_smaller_one(
    row: Conversation, small: float, large: float
) -> None:
    small, large = sorted([small, large])
    assert not side(row, small) or side(row, large)


@given(row=CONVERSATIONS, origin=st.text())
def test_the_side_ignores_where_a_row_stands_its_case_and_its_white_space(
    row: Conversation, origin: str
) -> None:
    loud = tuple(
        Message(m.role, f"  {m.content.casefold()}\n", m.context + "\t", m.train) for m in row.messages
    )
    twin = Conversation(loud, origin, row.group)
    if all(normalised(m.content.casefold()) == normalised(m.content) for m in row.messages):
        assert content_key(twin) == content_key(row)
        assert side(twin, 0.5) == side(row, 0.5)


@given(one=CONVERSATIONS, other=CONVERSATIONS, fraction=st.floats(0, 1))
def test_a_group_is_never_cut_apart(one: Conversation, other: Conversation, fraction: float) -> None:
    if one.group and one.group == other.group:
        assert side(one, fraction) == side(other, fraction)


@given(text=TEXT)
def test_ascii_takes_a_short_cut_to_the_same_bytes(text: str) -> None:
    assert normalised(text) == normalised(text + "\u00e9").removesuffix("\u00e9".encode())


def test_texts_do_not_run_together() -> None:
    def of(*contents: str) -> Conversation:
        return Conversation(tuple(Message("user", content) for content in contents), "f:1")

    assert content_key(of("ab", "c")) != content_key(of("a", "bc"))
    assert content_key(of("a\0b")) != content_key(of("a", "b"))


def test_shares_come_out_near_the_share_asked_for() -> None:
    rows = [
        Conversation((Message("user", f"question {n}"), Message("assistant", "yes")), "f:1")
        for n in range(4000)
    ]
    assert not any(side(row, 0.0) for row in rows)
    assert all(side(row, 1.0) for row in rows)
    assert 120 < sum(side(row, 0.05) for row in rows) < 280


def test_the_split_is_the_same_in_every_version() -> None:
    row = Conversation((Message("user", "What is LoRA?"), Message("assistant", "A low-rank update.")), "f:1")
    assert content_key(row).hex() == "4b076e488b9ddaf5823ba0b1ef8f19b8"
    assert group_key("tree 7").hex() == "dc48727a7f36d04b927dffa9c196dbe2"
    assert is_held_out(content_key(row), 0.3)
    assert not is_held_out(content_key(row), 0.29)


def candidates(texts: list[str], groups: list[str]) -> list[Candidate]:
    rows = [
        Conversation((Message("user", text),), f"f:{n}", group)
        for n, (text, group) in enumerate(zip(texts, groups, strict=True))
    ]
    drawn = sketch([spoken(row) for row in rows])
    return [Candidate(content_key(row), row.group, found) for row, found in zip(rows, drawn, strict=True)]


def placed(rows: list[Candidate], fraction: float = 0.4) -> list[Placed]:
    splitter = Splitter(fraction)
    return [splitter.place(row) for row in rows]


NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORD = st.sampled_from(["red", "green", "blue", "lora", "rank"])
# Texts of 1 to 12 words that share many runs, so that near duplicates and chains of them are common.
ROWS = st.lists(
    st.tuples(
        st.builds(
            lambda head, tail: " ".join([*NUMBERS[head:], *tail]),
            st.integers(0, 9),
            st.lists(WORD, min_size=1, max_size=3),
        ),
        st.sampled_from(["", "", "", "g", "h"]),
    ),
    max_size=20,
)


@settings(derandomize=True)
@given(rows=ROWS, more=ROWS, fraction=st.sampled_from([0.0, 0.2, 0.5]))
def test_rows_added_at_the_end_move_no_row(rows: list, more: list, fraction: float) -> None:
    everything = candidates(*map(list, zip(*rows, *more, strict=True))) if rows or more else []
    assert placed(everything, fraction)[: len(rows)] == placed(everything[: len(rows)], fraction)


@settings(derandomize=True)
@given(rows=ROWS)
def test_no_row_has_a_relative_on_the_other_side(rows: list) -> None:
    asking = candidates(*map(list, zip(*rows, strict=True))) if rows else []
    found = placed(asking)
    kept = [(row, one) for row, one in zip(asking, found, strict=True) if one.side]
    for (row, one), (other, two) in combinations(kept, 2):
        if one.side != two.side:
            assert row.key != other.key
            assert not row.group or row.group != other.group
            assert similarity(row.sketch, other.sketch) < 0.8
    for row, one in zip(asking, found, strict=True):
        if one.relative < 0:
            assert (one.side is Side.VALIDATION) == is_held_out(
                group_key(row.group) if row.group else row.key, 0.4
            )
        assert one.side or one.lost == "near_both_sides"


@settings(derandomize=True)
@given(rows=ROWS, at=st.integers(0, 20), extra=st.text("xyz ", max_size=12))
def test_rows_added_anywhere_move_no_row_without_relatives(rows: list, at: int, extra: str) -> None:
    grown = [*rows[:at], (extra, ""), *rows[at:]]
    before = placed(candidates([text for text, _ in rows], ["" for _ in rows]))
    after = placed(candidates([text for text, _ in grown], ["" for _ in grown]))
    del after[min(at, len(rows))]
    for one, two in zip(before, after, strict=True):
        if one.relative < 0 and two.relative < 0:
            assert one.side == two.side


def test_a_row_between_two_sides_is_left_out_and_a_row_near_one_follows() -> None:
    words = [f"w{n}" for n in range(80)]
    texts = [
        " ".join(words[at : at + 60]) for at in (0, 8, 4)
    ]  # similarity 0.84 four words apart, 0.73 eight
    for number in range(200):
        found = placed(candidates([f"{text} {number}" for text in texts], ["", "", ""]), 0.5)
        if found[0].side != found[1].side:
            break
    assert found[2].lost == "near_both_sides"
    assert found[2].side is Side.NEITHER
    follows = placed(candidates([f"{texts[1]} {number}", f"{texts[2]} {number}"], ["", ""]), 0.5)
    assert follows[0].side == follows[1].side == found[1].side
    assert follows[1].near is not None


def test_a_validation_file_keeps_its_rows_and_training_rows_like_them_go() -> None:
    text = "one two three four five six seven eight nine ten eleven"
    texts = [text, text.upper() + "!", f"{text} twelve", "other", "another"]
    rows = candidates(texts, ["", "", "", "g", "g"])
    splitter = Splitter(0.0)
    held = [splitter.place(rows[n], Side.VALIDATION) for n in (0, 3)]
    assert [one.side for one in held] == [Side.VALIDATION] * 2
    lost = [splitter.place(rows[n], Side.TRAIN) for n in (1, 2, 4)]
    assert [one.lost for one in lost] == ["near_validation", "near_validation", "group_in_validation"]
    assert [one.relative for one in lost] == [0, 0, 1]


@pytest.mark.parametrize("fraction", [0.05, 0.3])
def test_the_leaks_of_a_random_split_are_those_of_a_simulation(fraction: float) -> None:
    clusters = [n for n, size in enumerate([1] * 100 + [2] * 20 + [7] * 5) for _ in range(size)]
    sizes = Counter(Counter(clusters).values())
    draw, leaked = random.Random(0), 0
    for _ in range(2000):
        held = [draw.random() < fraction for _ in clusters]
        training = {cluster for cluster, out in zip(clusters, held, strict=True) if not out}
        leaked += sum(out and cluster in training for cluster, out in zip(clusters, held, strict=True))
    assert expected_leaks(sizes, fraction) == pytest.approx(leaked / 2000, rel=0.03)


def test_what_a_random_split_leaks_counts_copies_near_copies_and_trees() -> None:
    text = "one two three four five six seven eight nine ten eleven"
    texts = [text, text, f"{text} twelve", "alone", "tree a", "tree b", "by itself"]
    splitter = Splitter(0.5)
    for row in candidates(texts, ["", "", "", "", "t", "t", ""]):
        splitter.place(row)
    splitter.pass_over(b"0" * 16)
    report = splitter.to_json()
    assert (report["examples"], report["clusters"], report["clustered_examples"]) == (7, 2, 5)
    assert report["largest_cluster"] == 3
    assert report["random_split"] == {
        "fraction": 0.5,
        "validation_examples": 3.5,
        "leaked_examples": round(3 * 0.5 * 0.75 + 2 * 0.5 * 0.5, 1),
    }


def test_left_out_rows_are_no_relatives() -> None:
    splitter = Splitter(0.0)
    row = candidates(["one two three four five six"], ["g"])[0]
    assert splitter.pass_over(row.key).side is Side.NEITHER
    assert splitter.place(row, Side.VALIDATION).side is Side.VALIDATION
    assert splitter.place(row, Side.TRAIN).lost == "overlap_with_validation"
