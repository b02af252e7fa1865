"""The training loop: steps, validation, checkpoints, and going on where a cut run stopped.

The order of rows, the learning rate and the dropout masks are pure functions of
the step, and all other state is in the checkpoint. So a run that was killed and
resumed writes the same adapter, bit for bit, as one that was never stopped.
"""

import math
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch

from lora_kit.artifacts.checkpoint import (
    CheckpointState,
    newest_valid,
    read_checkpoint,
    rotate,
    save_checkpoint,
)
from lora_kit.artifacts.metrics_log import MetricsLog, stream_metrics
from lora_kit.data.layout import Plan
from lora_kit.data.types import Example
from lora_kit.errors import DivergedError, InterruptedRunError, LoraKitError
from lora_kit.model.adapter_inject import adapter_tensors, load_adapter_tensors
from lora_kit.train.budget import Healer, RowTooLargeError
from lora_kit.train.job import TrainJob, TrainResult
from lora_kit.train.observe import Observer, StepRecord
from lora_kit.train.optim import (
    build_optimizer,
    doubts_of_resume,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
    trainable_parameters,
)
from lora_kit.train.pacer import Pacer
from lora_kit.train.plan import TrainPlan
from lora_kit.train.rehearse import seconds_per_token, settle_budget
from lora_kit.train.runtime import peak_memory_bytes
from lora_kit.train.spikes import LossWatch
from lora_kit.train.step import StepResult, stepper_of, validation_loss
from lora_kit.train.stop import StopSignals

ROW_DECIMALS = 4  # of a row's nats in the log


def train(
    job: TrainJob,
    observer: Observer,
    *,
    allow_inexact: bool = False,
    on_failed: Callable[[LoraKitError], None] | None = None,
) -> TrainResult:
    """Train to the plan's end, from the newest valid checkpoint if there is one.

    Args:
        job: What to train.
        observer: Whom to tell.
        allow_inexact: Go on from a checkpoint of other library versions, threads or hardware.
        on_failed: Called before one of the first two errors leaves; the model holds the last good weights.

    Raises:
        DivergedError: A loss or gradient was not finite; the last good weights are committed.
        MachineError: A row does not fit in memory; the last good weights are committed.
        RecipeError: A step takes more than ``engine.memory_limit``; none was made.
        ModelError: The run's token budget is damaged or gone.
        InterruptedRunError: SIGINT or SIGTERM came; a checkpoint is committed.
    """
    loop = _Loop(job, observer)
    loop.resume(allow_inexact=allow_inexact)
    with StopSignals() as signals:
        while loop.step < loop.plan.steps:
            loop.advance(loop.step + 1, on_failed)
            if signals.received is not None and loop.step < loop.plan.steps:
                loop.save()
                raise InterruptedRunError(
                    f"stopped after step {loop.step} of {loop.plan.steps}, checkpoint committed",
                    signal_number=signals.received,
                    cure=f"go on with: lora-kit train {job.run.path}",
                )
    return loop.finish()


class _Loop:
    """The state of a run in progress."""

    def __init__(self, job: TrainJob, observer: Observer) -> None:
        self.job = job
        self.observer = observer
        self.parameters = trainable_parameters(job.model)
        self.optimizer = build_optimizer(self.parameters, job.plan.spec, job.optimizer)
        self.stepper = stepper_of(job, self.parameters, self.optimizer)
        self.layout = job.layout
        self.log = MetricsLog(job.run.metrics)
        asked, writes = job.plan.spec.micro_batch_tokens, job.accelerator.is_main_process
        self.healer = Healer(job.run, asked, observer, writes=writes)
        self.validation_plan: tuple[int, Plan] = (0, [])  # budget, and what is computed together with it
        self.losses = LossWatch()
        self.pacer = Pacer(job, observer)
        self.step = 0
        self.progress: dict[str, Any] = {"best_step": None, "best_loss": None, "last_loss": None}
        self.inexact: tuple[str, ...] = ()
        self.saved_step = 0

    def resume(self, *, allow_inexact: bool) -> None:
        """Load the newest valid checkpoint, cut the metrics log back to it, and settle the token budget."""
        state, skipped = newest_valid(self.job.run, self.job.identity, allow_inexact=allow_inexact)
        offset, digest, tokens = 0, None, None
        turns: list[list[int]] = []
        if state is not None:
            load_adapter_tensors(self.job.model, state.adapter)
            load_optimizer_tensors(self.optimizer, self.parameters, state.optimizer)
            self.step = self.saved_step = state.step
            self.progress = dict(state.progress)
            doubts = doubts_of_resume(self.optimizer, allow_inexact=allow_inexact)
            self.inexact = tuple(dict.fromkeys((*state.inexact, *doubts)))
            offset = self.progress.pop("metrics_offset")
            digest = self.progress.pop("metrics_digest", None)
            tokens = self.progress.pop("token_budget", None)
            turns = self.progress.pop("turns", [])
        if self.job.accelerator.is_main_process:
            self.log.truncate(offset, digest)
            self.losses = LossWatch(line["loss"] for line in stream_metrics(self.job.run.metrics))
            self._rotate()
        self.healer.begin(
            self.step, tokens, lambda: settle_budget(self.job, self.layout, self.stepper, self.observer)
        )
        self.pacer.begin(self.step, turns, self._rehearsed)
        self.observer.started(step=self.step, steps=self.plan.steps, notes=skipped)
        self.pacer.tell()

    @property
    def plan(self) -> TrainPlan:
        """What happens at each step, as it is known now."""
        return self.pacer.plan

    def _rehearsed(self) -> float:
        examples = [self.job.train[row] for row in self.plan.window(1).rows]
        return seconds_per_token(self.stepper, self.layout, examples)

    def advance(self, step: int, on_failed: Callable[[LoraKitError], None] | None) -> None:
        """Make one optimizer step, and what is due after it."""
        try:
            self._advance(step)
        except (DivergedError, RowTooLargeError) as error:
            if 0 < self.step < step:  # the weights are those of the step before, which is whole
                self.save()
            if on_failed is not None and self.job.accelerator.is_main_process:
                on_failed(error)
            raise
        if self.plan.saves(step):
            self.save()

    def _advance(self, step: int) -> None:
        plan = self.plan
        began = time.perf_counter()
        window = plan.window(step)
        examples = [self.job.train[row] for row in window.rows]
        set_learning_rate(self.optimizer, plan.learning_rate(step))
        result = self.healer.attempt(step, "training", lambda tokens: self._update(step, examples, tokens))
        seconds = time.perf_counter() - began
        self.step = step
        self.pacer.made(step, result.total_tokens, seconds)
        validation = self._validate() if self.plan.validates(step) else None
        record = StepRecord(
            step,
            window.epoch,
            result.loss,
            plan.learning_rate(step),
            result.grad_norm,
            result.trained_tokens,
            result.total_tokens,
            tuple(example.origin for example in examples),
            seconds,
            result.total_tokens / seconds,
            peak_memory_bytes(),
            validation,
            result.shared_tokens,
            self.healer.budget.fell_in(step),
            tuple(round(nats, ROW_DECIMALS) for nats in result.row_nats),
            tuple(sum(example.trained[1:]) for example in examples),
            self.losses.look(result.loss),
        )
        if self.job.accelerator.is_main_process:
            self.log.append(record.to_json())
        if record.spike:
            self.observer.noted(
                f"step {step}: loss {result.loss:.3g} is {record.spike:g} times the median before"
            )
        self.observer.stepped(record)

    def _update(self, step: int, examples: Sequence[Example], tokens: int) -> StepResult:
        """Update the adapter once; every attempt at a step draws the same dropout masks."""
        plan = self.plan
        torch.manual_seed(plan.dropout_seed(step, self.job.accelerator.process_index))
        together = self.layout.plan(examples, tokens)
        try:
            result = self.stepper.step(self.layout.micro_batches(examples, together))
        except DivergedError as error:
            problem = error.problems[0]
            raise DivergedError(
                problem.found,
                where=f"step {step}",
                key=f"learning rate {plan.learning_rate(step):.3g}",
                cure=problem.cure,
            ) from None
        nats = dict(zip(chain(*together), result.row_nats, strict=True))
        return result._replace(row_nats=tuple(nats[row] for row in range(len(examples))))

    def save(self) -> None:
        """Commit a checkpoint of this step, then drop the ones that are too old."""
        if self.saved_step == self.step:
            return
        with self.pacer.timing("saving"):
            self._save()
        self.saved_step = self.step
        self.observer.saved(self.step)

    def _save(self) -> None:
        if self.job.accelerator.is_main_process:
            self.log.sync()
            save_checkpoint(
                self.job.run,
                CheckpointState(
                    step=self.step,
                    adapter=adapter_tensors(self.job.model),
                    optimizer=optimizer_tensors(self.optimizer, self.parameters),
                    progress={
                        **self.progress,
                        "metrics_offset": self.log.offset,
                        "metrics_digest": self.log.digest(),
                        "token_budget": self.healer.budget.at(self.step, "validation"),
                        **self.pacer.progress(self.step),
                    },
                    identity=dict(self.job.identity),
                    inexact=self.inexact,
                ),
            )
            self._rotate()
        self.job.accelerator.wait_for_everyone()

    def _rotate(self) -> None:
        """Drop old checkpoints; also on resume, for a kill may have come between saving and this."""
        rotate(self.job.run, self.job.plan.spec.keep_checkpoints, self.progress["best_step"])

    def finish(self) -> TrainResult:
        """Choose the weights that become the adapter."""
        self.pacer.finish()
        best = self.progress["best_step"]
        step = best if self.plan.spec.keep == "best" and best is not None else self.plan.steps
        loss = self.progress["best_loss"] if step == best else self.progress["last_loss"]
        if step == self.step:
            tensors = adapter_tensors(self.job.model)
        else:
            tensors = read_checkpoint(self.job.run, step).adapter
        return TrainResult(step, self.plan.steps, loss, self.inexact, tensors)

    def _validate(self) -> float | None:
        """Held-out loss, None if not finite; the best so far is remembered (the earlier one on a tie)."""
        with self.pacer.timing("validation"):
            loss = self.healer.attempt(self.step, "validation", self._held_out_loss)
        if not math.isfinite(loss):
            return None
        self.progress["last_loss"] = loss
        best = self.progress["best_loss"]
        if best is None or loss < best:
            self.progress |= {"best_step": self.step, "best_loss": loss}
        return loss

    def _held_out_loss(self, tokens: int) -> float:
        """Loss on the held-out rows, which are planned once for each budget."""
        rows = self.job.validation
        if self.validation_plan[0] != tokens:
            self.validation_plan = tokens, self.layout.plan(rows, tokens)
        batches = self.layout.micro_batches(rows, self.validation_plan[1])
        return validation_loss(self.job.model, batches, self.job.accelerator)
