"""The training loop: steps, validation, checkpoints, and going on where a cut run stopped.

The order of rows, the learning rate and the dropout masks are pure functions of
the step, and all other state is in the checkpoint. So a run that was killed and
resumed writes the same adapter, bit for bit, as one that was never stopped.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor

from lora_kit.artifacts.checkpoint import (
    CheckpointState,
    newest_valid,
    read_checkpoint,
    rotate,
    save_checkpoint,
)
from lora_kit.artifacts.metrics_log import MetricsLog
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.data.collate import MicroBatch
from lora_kit.data.layout import Plan, layout_of
from lora_kit.data.types import Example
from lora_kit.errors import DivergedError, InterruptedRunError
from lora_kit.model.adapter_inject import adapter_tensors, load_adapter_tensors
from lora_kit.train.observe import Observer, StepRecord
from lora_kit.train.optim import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
    trainable_parameters,
)
from lora_kit.train.plan import TrainPlan
from lora_kit.train.runtime import peak_memory_bytes
from lora_kit.train.step import Stepper, validation_loss
from lora_kit.train.stop import StopSignals


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Everything that a training run needs, ready to go.

    Args:
        model: The base with a fresh adapter.
        flattened: Whether micro-batches are flattened (segment attention) or padded (ALiBi).
        train: Training examples.
        validation: Held-out examples, maybe none.
        plan: Which rows, rate and saves at each step.
        run: The run directory, locked by the caller.
        identity: Fingerprints that a checkpoint must share to be resumed from.
        accelerator: Device and processes.
        share_prefixes: Whether common beginnings are computed once; only where flattened.
    """

    model: PeftModel
    flattened: bool
    train: Sequence[Example]
    validation: Sequence[Example]
    plan: TrainPlan
    run: RunDir
    identity: Mapping[str, str]
    accelerator: Accelerator
    share_prefixes: bool = False


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished run found.

    Args:
        step: The step whose weights were kept.
        steps: Steps in all.
        validation_loss: Nats per trained token on held-out rows at ``step``, if measured.
        inexact: In what a resume was allowed to differ from an unbroken run; empty for an exact one.
        tensors: The adapter's weights.
    """

    step: int
    steps: int
    validation_loss: float | None
    inexact: tuple[str, ...]
    tensors: dict[str, Tensor]


def train(
    job: TrainJob,
    observer: Observer,
    *,
    allow_inexact: bool = False,
    on_diverged: Callable[[], None] | None = None,
) -> TrainResult:
    """Train to the plan's end, from the newest valid checkpoint if there is one.

    Args:
        job: What to train.
        observer: Whom to tell.
        allow_inexact: Go on from a checkpoint of other library versions, threads or hardware.
        on_diverged: Called before a DivergedError leaves, while the model holds the last good weights.

    Raises:
        DivergedError: A loss or gradient was not finite; the last good weights are committed.
        InterruptedRunError: SIGINT or SIGTERM came; a checkpoint is committed.
    """
    loop = _Loop(job, observer)
    loop.resume(allow_inexact=allow_inexact)
    with StopSignals() as signals:
        for step in range(loop.step + 1, job.plan.steps + 1):
            loop.advance(step, on_diverged)
            if signals.received is not None and step < job.plan.steps:
                loop.save()
                raise InterruptedRunError(
                    f"stopped after step {step} of {job.plan.steps}, checkpoint committed",
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
        self.optimizer = build_optimizer(self.parameters, job.plan.spec)
        self.stepper = Stepper(
            job.model,
            list(self.parameters.values()),
            self.optimizer,
            job.accelerator,
            job.plan.spec.max_grad_norm,
        )
        self.layout = layout_of(flattened=job.flattened, share_prefixes=job.share_prefixes)
        self.log = MetricsLog(job.run.metrics)
        self.step = 0
        self.progress: dict[str, Any] = {"best_step": None, "best_loss": None, "last_loss": None}
        self.inexact: tuple[str, ...] = ()
        self.saved_step = 0

    def resume(self, *, allow_inexact: bool) -> None:
        """Load the newest valid checkpoint, and cut the metrics log back to it."""
        state, skipped = newest_valid(self.job.run, self.job.identity, allow_inexact=allow_inexact)
        offset = 0
        if state is not None:
            load_adapter_tensors(self.job.model, state.adapter)
            load_optimizer_tensors(self.optimizer, self.parameters, state.optimizer)
            self.step = self.saved_step = state.step
            self.progress = dict(state.progress)
            self.inexact = state.inexact
            offset = self.progress.pop("metrics_offset")
        if self.job.accelerator.is_main_process:
            self.log.truncate(offset)
            self._rotate()
        self.observer.started(step=self.step, steps=self.job.plan.steps, notes=skipped)

    def advance(self, step: int, on_diverged: Callable[[], None] | None) -> None:
        """Make one optimizer step, and what is due after it."""
        plan = self.job.plan
        began = time.perf_counter()
        window = plan.window(step)
        examples = [self.job.train[row] for row in window.rows]
        torch.manual_seed(plan.dropout_seed(step, self.job.accelerator.process_index))
        set_learning_rate(self.optimizer, plan.learning_rate(step))
        try:
            result = self.stepper.step(self._micro_batches(examples))
        except DivergedError as error:
            self._keep_last_good(on_diverged)
            problem = error.problems[0]
            raise DivergedError(
                problem.found,
                where=f"step {step}",
                key=f"learning rate {plan.learning_rate(step):.3g}",
                cure=problem.cure,
            ) from None
        seconds = time.perf_counter() - began
        self.step = step
        validation = self._validate() if plan.validates(step) else None
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
        )
        if self.job.accelerator.is_main_process:
            self.log.append(record.to_json())
        self.observer.stepped(record)
        if plan.saves(step):
            self.save()

    def save(self) -> None:
        """Commit a checkpoint of this step, then drop the ones that are too old."""
        if self.saved_step == self.step:
            return
        if self.job.accelerator.is_main_process:
            self.log.sync()
            save_checkpoint(
                self.job.run,
                CheckpointState(
                    step=self.step,
                    adapter=adapter_tensors(self.job.model),
                    optimizer=optimizer_tensors(self.optimizer, self.parameters),
                    progress={**self.progress, "metrics_offset": self.log.offset},
                    identity=dict(self.job.identity),
                    inexact=self.inexact,
                ),
            )
            self._rotate()
        self.job.accelerator.wait_for_everyone()
        self.saved_step = self.step
        self.observer.saved(self.step)

    def _rotate(self) -> None:
        """Drop old checkpoints; also on resume, for a kill may have come between saving and this."""
        rotate(self.job.run, self.job.plan.spec.keep_checkpoints, self.progress["best_step"])

    def _keep_last_good(self, on_diverged: Callable[[], None] | None) -> None:
        """After a divergence: the weights before the bad step are the last good ones."""
        if self.step > 0:
            self.save()
        if on_diverged is not None and self.job.accelerator.is_main_process:
            on_diverged()

    def finish(self) -> TrainResult:
        """Choose the weights that become the adapter."""
        best = self.progress["best_step"]
        step = best if self.job.plan.spec.keep == "best" and best is not None else self.job.plan.steps
        loss = self.progress["best_loss"] if step == best else self.progress["last_loss"]
        if step == self.step:
            tensors = adapter_tensors(self.job.model)
        else:
            tensors = read_checkpoint(self.job.run, step).adapter
        return TrainResult(step, self.job.plan.steps, loss, self.inexact, tensors)

    def _micro_batches(self, examples: Sequence[Example]) -> list[MicroBatch]:
        return self.layout.micro_batches(examples, self._planned(examples))

    def _planned(self, examples: Sequence[Example]) -> Plan:
        return self.layout.plan(examples, self.job.plan.spec.micro_batch_tokens)

    @cached_property
    def _validation_plan(self) -> Plan:
        """What held-out rows are computed together; the same at every validation."""
        return self._planned(self.job.validation)

    def _validate(self) -> float | None:
        """Held-out loss, None if not finite; the best so far is remembered (the earlier one on a tie)."""
        batches = self.layout.micro_batches(self.job.validation, self._validation_plan)
        loss = validation_loss(self.job.model, batches, self.job.accelerator)
        if not math.isfinite(loss):
            return None
        self.progress["last_loss"] = loss
        best = self.progress["best_loss"]
        if best is None or loss < best:
            self.progress |= {"best_step": self.step, "best_loss": loss}
        return loss
