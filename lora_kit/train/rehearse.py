"""The token budget of a run, found by measuring: its own rows, forward and backward, before the first step.

Nothing of it stays: no weight is touched, gradients are dropped, and every step seeds its dropout anew. The
measured speeds depend on the machine's mood, so the choice is made once and written into the run.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from accelerate.utils import broadcast

from lora_kit.artifacts.disk import readable_bytes
from lora_kit.data.collate import MicroBatch
from lora_kit.data.layout import Layout
from lora_kit.data.row_file import lengths_of
from lora_kit.data.types import Example
from lora_kit.errors import RecipeError
from lora_kit.model.bare import bare_model
from lora_kit.model.engine import engine_of
from lora_kit.train.budget import TokenBudget
from lora_kit.train.job import TrainJob
from lora_kit.train.observe import Observer
from lora_kit.train.out_of_memory import NoRoomError, release
from lora_kit.train.runtime import forget_peak, free_memory, memory_in_use, peak_memory_bytes, wait_for_device
from lora_kit.train.step import Stepper, validation_loss

BUDGETS = (256, 512, 1024, 2048, 4096)
TIE = 0.03  # a smaller budget that is slower by less than this is taken: it needs less memory
MOST_SECONDS = 40.0  # no further budget is tried that would end after this
ENOUGH_SECONDS = 1.0  # a micro-batch is repeated until this, and the fastest time counts
REPEATS = 3
WINDOWS = 64  # of the run's beginning, among which the fullest is measured
SHARE_OF_FREE = 0.8  # of the memory that is free before; the rest is for validation, the optimizer and others


class Measured(NamedTuple):
    """One micro-batch, as full as a budget allows.

    Args:
        tokens: The budget.
        computed_tokens: What was computed; prefixes that are shared count once, padding counts.
        tokens_per_second: Its speed, forward and backward.
        peak_memory_bytes: The process's peak meanwhile.
    """

    tokens: int
    computed_tokens: int
    tokens_per_second: float
    peak_memory_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.tokens} tokens at once: {self.tokens_per_second:.0f} tokens/s, "
            f"{readable_bytes(self.peak_memory_bytes)}"
        )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What can be measured.

    Args:
        window: The rows of the fullest step.
        longest: The longest row of all.
        layout: How rows become micro-batches.
        stepper: Computes them.
        clock: Seconds.
    """

    window: Sequence[Example]
    longest: Example
    layout: Layout
    stepper: Stepper
    clock: Callable[[], float] = time.perf_counter

    def fullest(self, tokens: int) -> tuple[MicroBatch, bool]:
        """Return the micro-batch of the window that fills a budget best, and whether it is the whole window.

        A row that is longer than the budget stands alone at any budget, and says nothing about this one.
        """
        batches = self.layout.micro_batches(self.window, self.layout.plan(self.window, tokens))
        fitting = [batch for batch in batches if batch.input_ids.numel() <= tokens] or batches
        return max(fitting, key=lambda batch: batch.input_ids.numel()), len(batches) == 1

    def heaviest(self, tokens: int) -> MicroBatch:
        """Return what takes the most memory: a full micro-batch, or the longest row if that is longer."""
        alone = self.layout.collate([self.longest])
        return max([self.fullest(tokens)[0], alone], key=lambda batch: batch.input_ids.numel())

    def measure(self, tokens: int, batch: MicroBatch) -> Measured:
        """Compute a micro-batch some times.

        Raises:
            NoRoomError: It does not fit in memory.
        """
        forget_peak()
        times: list[float] = []
        while not times or (len(times) < REPEATS and sum(times) < ENOUGH_SECONDS):
            began = self.clock()
            self.stepper.rehearse(batch)
            wait_for_device()
            times.append(self.clock() - began)
        computed = batch.input_ids.numel()
        return Measured(tokens, computed, computed / min(times), peak_memory_bytes())

    def search(self, limit: int, on_measured: Callable[[Measured], None]) -> tuple[list[Measured], str]:
        """Measure one budget after the other, smallest first.

        Args:
            limit: Bytes that are not exceeded, as far as that can be told beforehand.
            on_measured: Told each.

        Returns:
            What was measured, maybe nothing, and why nothing larger was.
        """
        self.stepper.rehearse(self.layout.collate([min(self.window, key=lambda row: len(row.input_ids))]))
        before = self.clock(), memory_in_use()
        found: list[Measured] = []
        for tokens in BUDGETS:
            batch, whole = self.fullest(tokens)
            if not found or batch.input_ids.numel() != found[-1].computed_tokens:
                if found and (reason := self._too_much(batch, found[-1], before, limit)):
                    return found, reason
                try:
                    found.append(self.measure(tokens, batch))
                except NoRoomError:
                    release()
                    return found, f"{tokens} tokens at once did not fit in memory"
                on_measured(found[-1])
                if found[-1].tokens_per_second < (1 - TIE) * max(one.tokens_per_second for one in found):
                    return found, "larger ones are slower"
            if whole:
                return found, "no step has more tokens"
        return found, "larger ones are never tried"

    def _too_much(self, batch: MicroBatch, last: Measured, before: tuple[float, int], limit: int) -> str:
        """Say why a micro-batch is not tried: time or memory, both taken to grow with the tokens."""
        began, rest = before
        computed = batch.input_ids.numel()
        peak = forecast(last, rest, computed)
        if peak > limit:
            needed, there = readable_bytes(peak), readable_bytes(limit)
            return f"{computed} tokens at once would take about {needed} of {there}"
        if self.clock() - began + computed / last.tokens_per_second > MOST_SECONDS:
            return f"measuring {computed} tokens at once would take too long"
        return ""


def forecast(last: Measured, rest: int, computed: int) -> int:
    """Foretell the peak of a larger micro-batch: rather too much, for a part of it does not grow."""
    return int(rest + max(0, last.peak_memory_bytes - rest) * computed / last.computed_tokens)


def choose(found: Sequence[Measured], *, limit: int) -> Measured:
    """Return the fastest below the limit, or the smallest that is hardly slower; else the smallest."""
    found = [one for one in found if one.peak_memory_bytes <= limit] or found[:1]
    best = max(one.tokens_per_second for one in found)
    return next(one for one in found if one.tokens_per_second >= (1 - TIE) * best)


def settle_budget(job: TrainJob, layout: Layout, stepper: Stepper, observer: Observer) -> TokenBudget:
    """Find the budget of a new run, measuring where the recipe asks for it.

    Args:
        job: The run, before its first step.
        layout: How its rows become micro-batches.
        stepper: Computes gradients.
        observer: Whom to tell.

    Returns:
        The budget; with an ``origin``, to be written into the run, if anything was measured.

    Raises:
        RecipeError: A step takes more than ``engine.memory_limit``.
    """
    asked, limit = job.plan.spec.micro_batch_tokens, job.memory_limit
    if asked != "auto" and limit is None:
        return TokenBudget(asked)
    observer.phase("finding train.micro_batch_tokens" if asked == "auto" else "measuring the heaviest step")
    rehearsal = Rehearsal(*_rows(job), layout, stepper)
    if engine_of(bare_model(job.model)).trunk:
        _fill_trunk(job, rehearsal)
    budget = _found(rehearsal, limit, observer) if asked == "auto" else TokenBudget(asked, origin={})
    if limit is not None:
        heaviest = _heaviest(rehearsal, budget.tokens, limit)
        origin = {**(budget.origin or {}), "limit_bytes": limit, "heaviest_bytes": heaviest}
        budget = replace(budget, origin=origin)
    if asked == "auto":
        budget = _agreed(job, budget)
        observer.noted(f"train.micro_batch_tokens is {budget.tokens} from here on")
    release()
    return budget


def _rows(job: TrainJob) -> tuple[list[Example], Example]:
    """Return the rows of the fullest of the first steps, and the longest row."""
    rows = job.train
    lengths = lengths_of(rows)
    steps = range(1, min(job.plan.steps, job.plan.windows_per_epoch, WINDOWS) + 1)
    fullest = max((job.plan.window(step).rows for step in steps), key=lambda window: lengths[[*window]].sum())
    return [rows[row] for row in fullest], rows[int(lengths.argmax())]


def _fill_trunk(job: TrainJob, rehearsal: Rehearsal) -> None:
    """Have the rows' frozen states cached, or the first budget would pay for those that come after it."""
    rows = rehearsal.window
    batches = rehearsal.layout.micro_batches(rows, rehearsal.layout.plan(rows, BUDGETS[0]))
    with suppress(NoRoomError):
        validation_loss(job.model, batches, job.accelerator)


def _found(rehearsal: Rehearsal, limit: int | None, observer: Observer) -> TokenBudget:
    """Measure budgets, and choose."""
    room = memory_in_use() + int(SHARE_OF_FREE * free_memory())
    most = room if limit is None else min(limit, room)
    found, reason = rehearsal.search(most, lambda one: observer.noted(str(one)))
    tokens = choose(found, limit=most).tokens if found else BUDGETS[0]
    measured: list[dict[str, Any]] = [one._asdict() for one in found]
    return TokenBudget(tokens, origin={"measured": measured, "ended": reason})


def _heaviest(rehearsal: Rehearsal, tokens: int, limit: int) -> int:
    """Measure the peak of the heaviest micro-batch; refuse it above the limit."""
    batch = rehearsal.heaviest(tokens)
    try:
        peak = rehearsal.measure(tokens, batch).peak_memory_bytes
        takes = readable_bytes(peak)
    except NoRoomError:
        peak, takes = limit + 1, "more than there is"
    if peak <= limit:
        return peak
    alone = len(batch.origins) == 1
    what = f"row {batch.origins[0]} alone" if alone else f"a step in micro-batches of {tokens} tokens"
    lower = "data.max_tokens" if alone else "train.micro_batch_tokens"
    raise RecipeError(
        f"{what} takes {takes}, and the limit is {readable_bytes(limit)}",
        key="engine.memory_limit",
        cure=f"raise it, lower {lower}, or set engine.memory to low",
    )


def _agreed(job: TrainJob, budget: TokenBudget) -> TokenBudget:
    """Let all processes take what the main one found."""
    if job.accelerator.num_processes == 1:
        return budget
    tokens = broadcast(torch.tensor([budget.tokens], device=job.accelerator.device))
    return replace(budget, tokens=int(tokens))


def seconds_per_token(stepper: Stepper, layout: Layout, rows: Sequence[Example]) -> float:
    """Time the two longest of some rows, forward and backward; 0 if they don't fit in memory."""
    longest = sorted(rows, key=lambda row: len(row.input_ids))[-2:]
    batch = layout.collate(longest)
    began = time.perf_counter()
    try:
        stepper.rehearse(batch)
    except NoRoomError:
        release()
        return 0.0
    wait_for_device()
    return (time.perf_counter() - began) / sum(len(row.input_ids) for row in longest)
