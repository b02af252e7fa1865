"""The token budget: which one a step has, what is on disk, and what a failed allocation makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.data.collate import MicroBatch, flatten
from lora_kit.data.types import Example
from lora_kit.errors import ModelError
from lora_kit.train.budget import Healer, RowTooLargeError, TokenBudget, read_budget
from lora_kit.train.observe import Silent
from lora_kit.train.out_of_memory import NoRoomError


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return open_run(tmp_path / "run")


def batch(*lengths: int) -> MicroBatch:
    rows = [
        Example(tuple(range(n)), (False,) + (True,) * (n - 1), f"rows.jsonl:{at}", "")
        for at, n in enumerate(lengths, start=1)
    ]
    return flatten(rows)


def test_a_fall_counts_from_its_place_on() -> None:
    budget = TokenBudget(1024).lowered(3, "validation", 512).lowered(5, "training", 128)
    assert [budget.at(step) for step in (1, 3, 4, 5, 9)] == [1024, 1024, 512, 128, 128]
    assert [budget.at(step, "validation") for step in (2, 3, 5)] == [1024, 512, 128]
    assert [budget.fell_in(step) for step in (2, 3, 5)] == [0, 512, 128]


def test_falls_in_one_place_are_one_and_a_lower_earlier_one_replaces_later_ones() -> None:
    twice = TokenBudget(1024).lowered(3, "training", 512).lowered(3, "training", 256)
    assert [(c.before, c.tokens) for c in twice.changes] == [(1024, 256)]
    earlier = TokenBudget(1024).lowered(7, "training", 512).lowered(6, "training", 512)
    assert [(c.step, c.tokens) for c in earlier.changes] == [(6, 512)]
    both = TokenBudget(1024).lowered(7, "training", 256).lowered(6, "training", 512)
    assert [(c.step, c.tokens) for c in both.changes] == [(6, 512), (7, 256)]


def healer(run: RunDir, asked: Any = 1024, budget: int = 1024) -> Healer:
    made = Healer(run, asked, Silent(), writes=True)
    made.begin(0, None, lambda: TokenBudget(budget))
    return made


class Fails:
    """Finds no room a number of times, for given batches."""

    def __init__(self, run: RunDir, *batches: MicroBatch) -> None:
        self.run = run
        self.batches = list(batches)
        self.asked: list[int] = []
        self.on_disk: list[int | None] = []

    def __call__(self, tokens: int) -> str:
        known = read_budget(self.run)
        self.asked.append(tokens)
        self.on_disk.append(known.at(3) if known else None)
        if self.batches:
            raise NoRoomError(self.batches.pop(0))
        return "done"


def test_the_budget_is_halved_until_the_batch_must_split_and_written_before_it_is_used(run: RunDir) -> None:
    compute = Fails(run, batch(90, 60), batch(40, 20))
    assert healer(run).attempt(3, "training", compute) == "done"
    assert compute.asked == [1024, 128, 32]  # 512 and 256 would hold the 150 tokens again
    assert compute.on_disk == [None, 128, 32]
    known = read_budget(run)
    assert known is not None
    assert [tuple(change) for change in known.changes] == [(3, "training", 1024, 32)]


def test_a_row_alone_is_tried_twice_then_named(run: RunDir) -> None:
    assert healer(run).attempt(3, "training", Fails(run, batch(90))) == "done"
    with pytest.raises(RowTooLargeError, match=r"step 4: .*row rows\.jsonl:1 \(90 tokens\)") as error:
        healer(run).attempt(4, "training", Fails(run, batch(90), batch(40, 20), batch(90)))
    assert error.value.exit_code == 5
    assert f"lora-kit train {run.path}" in str(error.value)


def test_it_is_settled_once(run: RunDir) -> None:
    first = Healer(run, "auto", Silent(), writes=True)
    first.begin(0, None, lambda: TokenBudget(256, origin={"measured": [], "ended": "x"}))
    again = Healer(run, "auto", Silent(), writes=True)
    again.begin(0, None, lambda: pytest.fail("measured twice"))
    assert again.budget == first.budget
    again.begin(4, 256, lambda: pytest.fail("measured twice"))


def test_a_fixed_budget_leaves_no_file(run: RunDir) -> None:
    healer(run)
    assert not run.token_budget.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": 0},
        {"tokens": "256"},
        {"tokens": True},
        {"format_version": 2},
        {"changes": [{"step": 1}]},
        {"changes": [{"step": 1, "part": "dreaming", "before": 2, "tokens": 1}]},
        {"changes": [{"step": 1.5, "part": "training", "before": 2, "tokens": 1}]},
        {"changes": {}, "tokens": None},
        {"changes": 7},
    ],
    ids=str,
)
def test_a_damaged_file_is_refused(run: RunDir, change: dict[str, Any]) -> None:
    whole = {"format_version": 1, "tokens": 256, "changes": []}
    run.token_budget.write_text(json.dumps({**whole, **change}))
    with pytest.raises(ModelError, match=r"token_budget\.json: .*put it back"):
        read_budget(run)


@pytest.mark.parametrize(("content", "word"), [(None, "is missing"), (512, "is not the one")])
def test_another_budget_than_the_checkpoints_is_refused(run: RunDir, content: int | None, word: str) -> None:
    if content:
        run.token_budget.write_text(json.dumps(TokenBudget(content).to_json()))
    with pytest.raises(ModelError, match=word):
        Healer(run, "auto", Silent(), writes=True).begin(4, 256, lambda: pytest.fail("measured late"))
