"""Work is counted from micro-batches as they are laid out, not from averages."""

import pytest

from lora_kit.data.layout import layout_of
from lora_kit.data.types import Example
from lora_kit.planning import work
from lora_kit.planning.work import Work, count_run, sampled_steps, total, work_of
from lora_kit.recipe.schema import TrainSpec
from lora_kit.train.plan import plan_training


def row(tokens: int, number: int = 0, start: int = 0) -> Example:
    ids = tuple(range(start, start + tokens))
    return Example(ids, (False, *(True,) * (tokens - 1)), f"rows.jsonl:{number}", "")


def test_flattened_rows_count_causal_pairs_of_each_row() -> None:
    found = work_of(layout_of(flattened=True).collate([row(3), row(5)]))
    assert found == Work(0, 1, 8, 2 + 4, 3 * 4 / 2 + 5 * 6 / 2)


def test_padding_is_computed_and_counts() -> None:
    found = work_of(layout_of(flattened=False).collate([row(3), row(5)]))
    assert found == Work(0, 1, 10, 6, 2 * 5 * 5)


def test_what_rows_share_counts_once_and_is_seen_by_both() -> None:
    other = Example((*range(30), 99), (*[False] * 30, True), "rows.jsonl:2", "")
    found = work_of(layout_of(flattened=True, share_prefixes=True).collate([row(31), other]))
    # Thirty common tokens, and of each row one of its own, which sees all 31.
    assert found == Work(0, 1, 32, 30 + 1, 30 * 31 / 2 + 2 * 31)


@pytest.mark.parametrize("steps", [1, 7, 300])
def test_a_long_run_is_a_sample_multiplied(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(work, "SAMPLED", 10)
    rows = [row(4, number) for number in range(6)]
    plan = plan_training(TrainSpec(steps=steps, batch_size=2), rows=6, has_validation=True)
    found = count_run(plan, rows, rows[:3], layout_of(flattened=True), 8)
    assert found.training == pytest.approx(Work(steps, steps, 8 * steps, 6 * steps, 20 * steps))
    assert found.validation.tokens == 12
    assert found.heaviest.tokens == 8
    assert len(sampled_steps(steps)) == min(steps, 10)


def test_nothing_adds_up_to_nothing() -> None:
    assert total([]) == Work()
