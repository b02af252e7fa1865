"""Guesses come from the row's own text, grow with success, and never change what pays."""

import pytest

from lora_kit.model.draft import PASS, Draft, guesses
from lora_kit.model.few_rows import columns_at
from lora_kit.model.kv_cache import FEW

LOOP = [7, 8, 9]


def test_what_followed_last_time_is_guessed() -> None:
    draft = Draft([1, 2, 3, 4, 9, 9, 1, 2, 3, 5, 0, 1, 2, 3])
    assert draft.guess(10) == [5, 0, 1, 2]
    assert draft.guess(0) == []


def test_nothing_is_guessed_from_new_text() -> None:
    assert Draft([1, 2, 3, 4, 5]).guess(4) == []
    assert Draft([1]).guess(4) == []
    assert Draft([5, 5, 5]).guess(4) == []  # the three stand there for the first time


def test_right_guesses_make_the_next_ones_likelier_and_a_wrong_one_starts_again() -> None:
    draft = Draft(LOOP * 2)
    assert draft.guess(10) == [*LOOP, LOOP[0]][:FEW]
    chances = [draft.chance(1)]
    for token in LOOP * 2:
        draft.grow([token])
        chances.append(draft.chance(1))
    assert chances == sorted(set(chances))
    assert chances[0] == pytest.approx(2 / 3)
    assert draft.chance(2) == pytest.approx(draft.chance(1) * (draft.right + 3) / (draft.right + 4))
    assert draft.guess(2) == LOOP[:2]
    draft.grow([55])
    assert draft.right == 0


def test_text_is_learned_once_in_whatever_pieces_it_comes() -> None:
    text = [1, 2, 3, 1, 2, 3, 4, 1, 2, 3]
    whole, pieces = Draft(text[:4]), Draft(text[:4])
    whole.grow(text[4:])
    for token in text[4:]:
        pieces.guess(3)
        pieces.grow([token])
    assert whole.guess(3) == pieces.guess(3) == [4, 1, 2]
    assert whole.right == pieces.right


def test_rows_without_a_guess_get_none() -> None:
    drafts = [Draft([1, 2, 3, 4]), Draft(LOOP * 2)]
    assert guesses([None, *drafts], [5, 5, 0], 3) == [[], [], []]


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 12, 17, 29, 32, 33])
@pytest.mark.parametrize("trust", [0, 3, 40])
def test_as_many_are_guessed_as_give_most_tokens_a_second(rows: int, trust: int) -> None:
    drafts = [Draft(LOOP * 2, right=trust * (row % 3)) for row in range(rows)]
    found = guesses(drafts, [9] * rows, rows)
    taken = sorted(
        draft.chance(at) for draft, own in zip(drafts, found, strict=True) for at in range(1, len(own) + 1)
    )
    left = sorted(
        (
            draft.chance(at)
            for draft, own in zip(drafts, found, strict=True)
            for at in range(len(own) + 1, FEW + 1)
        ),
        reverse=True,
    )
    assert not taken or not left or taken[0] >= left[0]

    def rate(chances: list[float]) -> float:
        return (rows + sum(chances)) / (PASS + columns_at(rows + len(chances)))

    mine = rate(taken)
    assert all(mine >= rate(taken + left[:more]) - 1e-12 for more in range(1, len(left) + 1))
    assert all(mine >= rate(taken[less:]) - 1e-12 for less in range(1, len(taken) + 1))


def test_columns_that_are_computed_anyway_are_filled() -> None:
    drafts = [Draft(LOOP * 2) for _ in range(29)]
    assert sum(map(len, guesses(drafts, [1] * 29, 29))) == columns_at(29) - 29


def test_one_looping_row_among_many_does_not_widen_the_pass() -> None:
    drafts: list[Draft | None] = [Draft(LOOP * 3, right=50), *[None] * 31]
    assert not any(guesses(drafts, [5] * 32, 32))
    assert len(guesses(drafts, [5] * 32, 28)[0]) == FEW
