"""The run as numbers, before it starts: which rows at which step, which rate, when to save.

Everything here is a pure function of recipe and row count. No sampler, scheduler
or random state has to be saved: a resumed run asks the same plan for the same step.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from lora_kit.data.plan_batches import epoch_windows
from lora_kit.errors import RecipeError
from lora_kit.recipe.schema import LARGEST, TrainSpec

# Tensors of the adapter's size in a checkpoint, and in memory: its weights and AdamW's two moments.
CHECKPOINT_PARTS = 3


def checkpoints_at_once(spec: TrainSpec) -> int:
    """Most checkpoints on disk: those that are kept, the best, and the one that is being written."""
    return spec.keep_checkpoints + 2


class Window(NamedTuple):
    """The rows of one optimizer step.

    Args:
        epoch: Pass over the rows, from 0.
        rows: Indices into the training examples.
    """

    epoch: int
    rows: tuple[int, ...]


class Turn(NamedTuple):
    """A number of steps that was decided while the run went on.

    Args:
        after: Steps that were made.
        steps: In all, from then on.
    """

    after: int
    steps: int


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What happens at each step 1..steps.

    Args:
        steps: Optimizer steps in all.
        rows: Training examples.
        has_validation: Whether there are rows to validate on.
        spec: The recipe's training section.
        turns: Earlier and present numbers of steps, in order; empty without a deadline.
    """

    steps: int
    rows: int
    has_validation: bool
    spec: TrainSpec
    turns: tuple[Turn, ...] = ()

    @property
    def windows_per_epoch(self) -> int:
        """Optimizer steps in one pass; the last of a pass may hold fewer rows."""
        return math.ceil(self.rows / self.spec.batch_size)

    def window(self, step: int) -> Window:
        """Rows of ``step`` (1-based)."""
        epoch, index = divmod(step - 1, self.windows_per_epoch)
        return Window(epoch, _windows(self.spec.seed, epoch, self.rows, self.spec.batch_size)[index])

    def learning_rate(self, step: int) -> float:
        """Linear warm-up to the peak, then decay.

        The first step after the warm-up has the full rate, and the rate would be zero
        one step after the last, so that no step is spent on a zero update. Where the number
        of steps changes, the rate goes on from where it is: the step after has the same rate
        by the old number and the new one.
        """
        spec = self.spec
        first, reached, progress = self._decay(step)
        if step < first:
            return spec.learning_rate * step / spec.warmup_steps
        peak = spec.learning_rate * reached
        if spec.schedule == "cosine":
            return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
        if spec.schedule == "linear":
            return peak * (1.0 - progress)
        return peak

    def turned(self, turns: tuple[Turn, ...]) -> "TrainPlan":
        """Return the plan with these numbers of steps, at least one."""
        return replace(self, steps=turns[-1].steps, turns=turns)

    def _decay(self, step: int) -> tuple[int, float, float]:
        """Return the first step of the decay's present part, the share of the peak it has, and progress."""
        warmup = self.spec.warmup_steps
        first, reached, progress = warmup + 1, 1.0, 0.0
        end = self.turns[0].steps if self.turns else self.steps
        for turn in self.turns[1:]:
            at = turn.after + 1
            if at > step:
                break
            if at > first:
                progress += (1.0 - progress) * (at - first) / (end + 1 - first)
                first = at
            elif at < first and turn.steps <= warmup:  # no time for the rest of the warm-up
                first, reached = at, at / warmup
            end = turn.steps
        if step > first:
            progress += (1.0 - progress) * (step - first) / (end + 1 - first)
        return first, reached, progress

    def validates(self, step: int) -> bool:
        """Whether the held-out loss is measured after ``step``."""
        every = self.spec.validate_every
        return self.has_validation and (step == self.steps or (every is not None and step % every == 0))

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is committed after ``step``; always where the best one may be."""
        return step == self.steps or step % self.spec.save_every == 0 or self.validates(step)

    def dropout_seed(self, step: int, process: int) -> int:
        """Seed of the dropout masks of ``step``, so that no random state needs saving."""
        text = f"lora_kit dropout {self.spec.seed} {step} {process}"
        return int.from_bytes(sha256(text.encode()).digest()[:7], "big")


@lru_cache(maxsize=2)
def _windows(seed: int, epoch: int, rows: int, batch_size: int) -> list[tuple[int, ...]]:
    return epoch_windows(seed=seed, epoch=epoch, rows=rows, batch_size=batch_size)


def plan_training(spec: TrainSpec, *, rows: int, has_validation: bool) -> TrainPlan:
    """Resolve steps and epochs into the number of steps; beside a deadline, a first guess of it.

    Args:
        spec: The recipe's training section.
        rows: Training examples, at least one.
        has_validation: Whether there are rows to validate on.

    Raises:
        RecipeError: The warm-up is as long as the run (known only now if ``epochs`` is given).
    """
    steps = spec.steps or math.ceil(rows / spec.batch_size) * (spec.epochs or 1)
    if spec.warmup_steps >= most_steps(spec, rows):
        raise RecipeError(
            f"{spec.warmup_steps} warm-up steps, but the run has only {steps} steps",
            key="train.warmup_steps",
            cure="lower it, or raise train.epochs",
        )
    return TrainPlan(steps, rows, has_validation, spec)


def most_steps(spec: TrainSpec, rows: int) -> int:
    """Return how many steps there can be: without a limit if a deadline stands alone."""
    if spec.has_deadline and spec.steps is None and spec.epochs is None:
        return LARGEST
    return spec.steps or math.ceil(rows / spec.batch_size) * (spec.epochs or 1)
