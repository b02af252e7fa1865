"""Guesses come from the row's own text, grow with success, and never change what pays."""

import pytest

from lora_kit.model.draft import FEW, MOST, PROVEN, Draft, guesses
from lora_kit.model.few_rows import columns_at

LOOP = [7, 8, 9]


def test_what_followed_last_time_is_guessed() -> None:
    draft = Draft([1, 2, 3, 4, 9, 9, 1, 2, 3, 5, 0, 1, 2, 3])
    assert draft.guess(10) == [5]
    assert draft.guess(0) == []


def test_nothing_is_guessed_from_new_text() -> None:
    assert Draft([1, 2, 3, 4, 5]).guess(4) == []
    assert Draft([1]).guess(4) == []
    assert Draft([5, 5, 5]).guess(4) == []  # the three stand there for the first time


def test_six_right_ones_make_guesses_long_and_a_wrong_one_makes_them_short() -> None:
    draft = Draft(LOOP * 2)
    for number in range(PROVEN):
        assert len(draft.guess(10)) == 1
        draft.grow([LOOP[number % 3]])
    assert draft.right == PROVEN
    assert draft.guess(10) == (LOOP * 2)[:MOST]
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
    assert whole.guess(3) == pieces.guess(3) == [4]
    assert whole.right == pieces.right


def test_few_rows_all_guess() -> None:
    drafts = [Draft(LOOP * 2) for _ in range(FEW)]
    assert guesses(drafts, [5] * FEW, FEW) == [[7]] * FEW
    assert guesses([None, drafts[0]], [5, 0], 2) == [[], []]


@pytest.mark.parametrize("rows", [17, 29, 32, 33])
def test_many_rows_fill_free_columns_with_the_most_trusted(rows: int) -> None:
    drafts = [Draft(LOOP * 2, right=row % PROVEN) for row in range(rows)]
    found = guesses(drafts, [5] * rows, rows)
    free = columns_at(rows) - rows
    assert sum(map(len, found)) == free
    guessing = [drafts[row].right for row in range(rows) if found[row]]
    silent = [drafts[row].right for row in range(rows) if not found[row]]
    assert not guessing or min(guessing) >= max(silent)


def test_the_proven_guess_among_many_rows() -> None:
    drafts = [Draft(LOOP * 3, right=PROVEN if row == 5 else 0) for row in range(32)]
    found = guesses(drafts, [5] * 32, 32)
    assert len(found[5]) == MOST
    assert sum(map(len, found)) == columns_at(32 + MOST) - 32
