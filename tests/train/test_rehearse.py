"""Finding the token budget: what is measured, what stops it, what is chosen, and that nothing of it stays."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.data.collate import MicroBatch
from lora_kit.data.layout import layout_of
from lora_kit.data.types import Example
from lora_kit.errors import RecipeError
from lora_kit.recipe.load import load_recipe
from lora_kit.report.write import write_report
from lora_kit.train import rehearse
from lora_kit.train.observe import Silent
from lora_kit.train.out_of_memory import NoRoomError
from lora_kit.train.rehearse import Measured, Rehearsal, choose, forecast
from lora_kit.train_run import train_recipe

GB = 10**9


def row(tokens: int, number: int = 0) -> Example:
    ids = tuple(range(tokens))
    return Example(ids, (False, *(True,) * (tokens - 1)), f"rows.jsonl:{number}", "")


@dataclass
class Machine:
    """A stand-in for stepper, clock and memory: a fixed cost and a cost a token, and a peak that grows."""

    fixed: float = 0.01
    per_token: float = 0.0001
    slow_above: int = 10**9
    fits: int = 10**9
    now: float = 0.0
    peak: int = GB
    computed: list[int] = field(default_factory=list)

    def rehearse(self, batch: MicroBatch) -> None:
        tokens = batch.input_ids.numel()
        if tokens > self.fits:
            raise NoRoomError(batch)
        self.computed.append(tokens)
        self.now += (self.fixed + self.per_token * tokens) * (3 if tokens > self.slow_above else 1)
        self.peak = GB + tokens * 10**6

    def clock(self) -> float:
        return self.now


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Measured], str]]:
    """Search with a stand-in machine."""

    def run(machine: Machine, lengths: Sequence[int], limit: int = 10**12) -> tuple[list[Measured], str]:
        monkeypatch.setattr(rehearse, "memory_in_use", lambda: GB)
        monkeypatch.setattr(rehearse, "peak_memory_bytes", lambda: machine.peak)
        monkeypatch.setattr(rehearse, "forget_peak", lambda: None)
        rows = [row(length, number) for number, length in enumerate(lengths, start=1)]
        layout = layout_of(flattened=True)
        made = Rehearsal(rows, max(rows, key=lambda r: len(r.input_ids)), layout, machine, machine.clock)  # type: ignore[arg-type]
        return made.search(limit, lambda _: None)

    return run


Search = Callable[..., tuple[list[Measured], str]]


def test_budgets_are_measured_until_no_step_has_more_tokens(search: Search) -> None:
    found, reason = search(Machine(), [64] * 20)
    assert [(one.tokens, one.computed_tokens) for one in found] == [
        (256, 256),
        (512, 512),
        (1024, 1024),
        (2048, 1280),
    ]
    assert reason == "no step has more tokens"


def test_a_long_row_does_not_hide_what_a_budget_does(search: Search) -> None:
    found, _ = search(Machine(), [900, *[64] * 20])
    assert [one.computed_tokens for one in found][:2] == [256, 512]


def test_slower_ends_it(search: Search) -> None:
    found, reason = search(Machine(slow_above=600), [64] * 100)
    assert [one.tokens for one in found] == [256, 512, 1024]
    assert reason == "larger ones are slower"
    assert choose(found, limit=10**12).tokens == 512


def test_the_limit_is_never_passed(search: Search) -> None:
    machine = Machine()
    found, reason = search(machine, [64] * 100, limit=GB + 700 * 10**6)
    assert [one.tokens for one in found] == [256, 512]
    assert max(machine.computed) == 512
    assert reason == "1024 tokens at once would take about 2.0 GB of 1.7 GB"


def test_time_is_bounded(search: Search) -> None:
    machine = Machine(per_token=0.02)
    found, reason = search(machine, [64] * 100)
    assert machine.now < rehearse.MOST_SECONDS
    assert [one.tokens for one in found] == [256, 512, 1024]
    assert "too long" in reason


def test_what_does_not_fit_ends_it(search: Search) -> None:
    found, reason = search(Machine(fits=600), [64] * 100)
    assert [one.tokens for one in found] == [256, 512]
    assert reason == "1024 tokens at once did not fit in memory"


@pytest.mark.parametrize(
    ("speeds", "peaks", "expected"),
    [
        ([60, 70, 80], [1, 2, 3], 1024),
        ([60, 78, 80], [1, 2, 3], 512),
        ([80, 70, 60], [1, 2, 3], 256),
        ([60, 70, 80], [1, 2, 9], 512),
        ([60, 70, 80], [9, 9, 9], 256),
    ],
)
def test_the_fastest_is_chosen_or_a_smaller_one_that_is_hardly_slower(
    speeds: list[float], peaks: list[int], expected: int
) -> None:
    found = [
        Measured(256 << n, 256 << n, speed, peak)
        for n, (speed, peak) in enumerate(zip(speeds, peaks, strict=True))
    ]
    assert choose(found, limit=5).tokens == expected


def test_a_forecast_is_never_too_low_where_memory_grows_with_the_tokens() -> None:
    def peak(tokens: int) -> int:
        return GB + 300 * 10**6 + tokens * 10**6

    last = Measured(256, 256, 1.0, peak(256))
    assert forecast(last, GB, 512) >= peak(512)
    assert forecast(last, GB, 512) < 2 * peak(512)


class Notes(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def noted(self, text: str) -> None:
        self.texts.append(text)


def train(recipe: Path, run: Path, *overrides: str) -> Notes:
    notes = Notes()
    train_recipe(load_recipe(recipe, overrides), run, notes)
    return notes


def small_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearse, "BUDGETS", (32, 64, 128, 256))


def test_auto_trains_as_the_chosen_budget_does_and_says_so(
    tiny_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_budgets(monkeypatch)
    recipe = tiny_recipe()  # with dropout: the steps draw as if nothing had been measured
    notes = train(recipe, tmp_path / "auto", "train.micro_batch_tokens=auto")
    content = json.loads((tmp_path / "auto/token_budget.json").read_text())
    assert content["tokens"] in {one["tokens"] for one in content["measured"]}
    assert content["ended"]
    assert notes.texts[-1] == f"train.micro_batch_tokens is {content['tokens']} from here on"
    train(recipe, tmp_path / "fixed", f"train.micro_batch_tokens={content['tokens']}")
    assert not (tmp_path / "fixed/token_budget.json").exists()
    one, other = (
        load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("auto", "fixed")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    write_report(RunDir(tmp_path / "auto"))
    text = (tmp_path / "auto/report.md").read_text()
    assert "Tokens at once" in text
    assert "Measured beforehand" in text


@pytest.mark.parametrize(
    ("override", "found"),
    [("1024", "a step in micro-batches of 1024 tokens"), ("8", "alone takes"), ("auto", "takes")],
)
def test_a_limit_that_can_not_be_held_is_refused_before_the_first_step(
    tiny_recipe: Callable[..., Path], tmp_path: Path, override: str, found: str
) -> None:
    overrides = (f"train.micro_batch_tokens={override}", "engine.memory_limit=20MB")
    with pytest.raises(
        RecipeError, match=rf"engine\.memory_limit: .*{found}.*limit is 20\.0 MB; raise it"
    ) as error:
        train(tiny_recipe(), tmp_path / "run", *overrides)
    assert len(error.value.problems) == 1
    assert not (tmp_path / "run/metrics.jsonl").read_text()
    assert not (tmp_path / "run/token_budget.json").exists()


def test_a_limit_that_is_held_is_recorded(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    train(tiny_recipe(), tmp_path / "run", "engine.memory_limit=900GB")
    content: dict[str, Any] = json.loads((tmp_path / "run/token_budget.json").read_text())
    assert content["tokens"] == 1024
    assert 0 < content["heaviest_bytes"] < content["limit_bytes"] == 900 * GB
