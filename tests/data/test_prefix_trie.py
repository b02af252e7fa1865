"""A trie of rows holds every row, shares only what pays, and does not depend on anything but the rows."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_kit.data.collate import flatten, share
from lora_kit.data.plan_batches import plan_micro_batches, plan_shared_micro_batches
from lora_kit.data.prefix_trie import LEAST_SAVED, Prefixes
from lora_kit.data.types import Example


def family_of_rows(seed: int, count: int) -> list[tuple[int, ...]]:
    """Rows that begin like an earlier one, at some length, or like none."""
    draw = random.Random(seed)
    rows: list[tuple[int, ...]] = []
    for _ in range(count):
        kept = draw.choice(rows)[: draw.randint(0, 60)] if rows and draw.random() < 0.8 else ()
        rows.append((*kept, *(draw.randrange(3) for _ in range(draw.randint(0 if kept else 1, 40)))))
    return rows


def example(ids: tuple[int, ...], number: int = 0) -> Example:
    return Example(ids, tuple(t % 3 != 0 for t in range(len(ids))), f"r:{number}", f"{number:064x}")


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 12))
def test_every_row_is_a_path(seed: int, count: int) -> None:
    rows = family_of_rows(seed, count)
    trie = Prefixes(rows).trie(range(count))
    flat = [token for row, start, stop, _ in trie.segments for token in rows[row][start:stop]]
    assert [tuple(flat[place] for place in trie.places(row)) for row in range(count)] == rows
    assert all(parent < index for index, parent in enumerate(trie.parents))
    assert all(length > 0 for length in trie.lengths)
    assert sum(trie.lengths) <= sum(map(len, rows))


@given(seed=st.integers(0, 2**32))
def test_every_split_saves_enough(seed: int) -> None:
    trie = Prefixes(rows := family_of_rows(seed, 9)).trie(range(9))
    users = [0] * len(trie.segments)
    for leaf in trie.leaves:
        index = leaf
        while index >= 0:
            users[index] += 1
            index = trie.segments[index].parent
    saved = [(count - 1) * length for count, length in zip(users, trie.lengths, strict=True)]
    assert all(one == 0 or one >= LEAST_SAVED for one in saved)
    assert sum(map(len, rows)) - sum(trie.lengths) == sum(saved)


def test_what_does_not_pay_is_not_split() -> None:
    one = tuple(range(LEAST_SAVED - 1))
    assert Prefixes([(*one, 70), (*one, 80)]).trie([0, 1]).parents == (-1, -1)
    assert Prefixes([(*one, 70), (*one, 80), (*one, 90)]).trie([0, 1, 2]).parents == (-1, 0, 0, 0)


def test_equal_rows_and_rows_within_rows_have_no_segment_of_their_own() -> None:
    row = tuple(range(60))
    trie = Prefixes([row, row[:30], row]).trie([0, 1, 2])
    assert trie.lengths == (30, 30)
    assert trie.leaves == (1, 0, 1)


def test_a_chain_of_a_thousand_rows_is_no_deep_recursion() -> None:
    rows = [(1,) * (20 * n) for n in range(1, 1001)]
    assert sum(Prefixes(rows).trie(range(1000)).lengths) == 20_000


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), budget=st.integers(1, 200))
def test_a_shared_plan_holds_each_row_once_within_the_budget(seed: int, budget: int) -> None:
    rows = family_of_rows(seed, 10)
    plan = plan_shared_micro_batches(rows, budget)
    assert sorted(row for part in plan for row in part) == list(range(10))
    prefixes = Prefixes(rows)
    sizes = [prefixes.tokens(part) for part in plan]
    assert all(size <= budget or len(part) == 1 for size, part in zip(sizes, plan, strict=True))
    assert sizes == sorted(sizes, reverse=True)
    plain = plan_micro_batches(prefixes.lengths, budget, padded=False)
    assert sum(sizes) + 16 * len(plan) <= sum(prefixes.lengths) + 16 * len(plain)
    assert plan == plan_shared_micro_batches(rows, budget)


def test_relatives_meet() -> None:
    contexts = [tuple(range(base, base + 100)) for base in (0, 200, 400)]
    rows = [(*contexts[n % 3], 1000 + n) for n in range(9)]
    plan = plan_shared_micro_batches(rows, 110)
    assert sorted(plan) == [(0, 3, 6), (1, 4, 7), (2, 5, 8)]


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_sharing_keeps_targets_owners_and_positions(seed: int) -> None:
    examples = [example(ids, n) for n, ids in enumerate(family_of_rows(seed, 6))]
    one, two = flatten(examples), share(examples)
    assert one.targets.tolist() == two.targets.tolist()
    assert one.owner.tolist() == two.owner.tolist()
    assert (one.lengths, one.origins) == (two.lengths, two.origins)
    for batch in (one, two):
        assert sum(batch.segments) == batch.input_ids.shape[1] == batch.position_ids.shape[1]
    assert one.shared_tokens == 0
    assert two.shared_tokens == one.input_ids.shape[1] - two.input_ids.shape[1]
    before = one.position_ids[0][one.predict_at], two.position_ids[0][two.predict_at]
    assert before[0].tolist() == before[1].tolist()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_layout_does_not_depend_on_the_order(order: tuple[int, ...]) -> None:
    rows = [(*range(50), 99), tuple(range(30)), (7, 8)]
    trie = Prefixes([rows[n] for n in order]).trie(range(3))
    assert trie.lengths == (30, 21, 2)
