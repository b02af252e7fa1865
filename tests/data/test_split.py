from hypothesis import given
from hypothesis import strategies as st

from lora_kit.data.split import content_key, group_key, is_held_out, normalised
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
