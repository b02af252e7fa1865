"""Timed steps on this machine, with the recipe's own model and rows: the shortest, the median, the heaviest.

The job is the one that training builds, in a run directory that is thrown away, on the disk where the run
will be. After the three, whole steps are made from the run's beginning as long as there is time: they say
what the optimizer costs, and memory shows what it grows to as blocks of changing sizes come and go.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from lora_kit.artifacts.checkpoint import CheckpointState, save_checkpoint
from lora_kit.data.collate import MicroBatch
from lora_kit.data.row_file import lengths_of
from lora_kit.model.adapter_inject import adapter_tensors
from lora_kit.planning.cost import Timed, fit
from lora_kit.planning.flops import Flops
from lora_kit.planning.work import Work, laid_out, total, window_rows, work_of
from lora_kit.train.job import TrainJob
from lora_kit.train.optim import (
    build_optimizer,
    optimizer_tensors,
    set_learning_rate,
    trainable_parameters,
)
from lora_kit.train.out_of_memory import NoRoomError, release
from lora_kit.train.plan import CHECKPOINT_PARTS
from lora_kit.train.runtime import peak_memory_bytes, wait_for_device
from lora_kit.train.step import stepper_of, validation_loss

ENOUGH_SECONDS = 24.0  # of timing; nothing is begun that would end later
LOOKED_AT = 48  # steps of the run's beginning, among whose micro-batches the three are chosen
MOST_STEPS = 12
SHORTEST, MEDIAN, HEAVIEST = "the shortest row", "a median micro-batch", "the heaviest micro-batch"


@dataclass(slots=True)
class Measured:
    """What was found.

    Args:
        timed: In the order of the timings; the first is that of the shortest row.
        no_room: Tokens of a micro-batch that did not fit in memory; 0 if all did.
        untimed: What there was no time for, in words.
        forward_share: Of a micro-batch's time, its forward pass in evaluation mode; None if it was not timed.
        save_seconds: Of one checkpoint.
    """

    timed: list[Timed] = field(default_factory=list)
    no_room: int = 0
    untimed: list[str] = field(default_factory=list)
    forward_share: float | None = None
    save_seconds: float = 0.0


class Measurement:
    """Measures one job; its model is worth nothing afterwards.

    Args:
        job: Ready to train.
        flops: What its work costs in operations.
        tokens: Most tokens of a micro-batch.
        clock: Seconds.
        enough: Seconds that the timings may take.
    """

    def __init__(
        self,
        job: TrainJob,
        flops: Flops,
        tokens: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
        enough: float = ENOUGH_SECONDS,
    ) -> None:
        self.job = job
        self.flops = flops
        self.tokens = tokens
        self.clock = clock
        self.enough = enough
        self.layout = job.layout
        self.parameters = trainable_parameters(job.model)
        self.optimizer = build_optimizer(self.parameters, job.plan.spec, job.optimizer)
        self.stepper = stepper_of(job, self.parameters, self.optimizer)
        self.found = Measured()

    def run(self) -> Measured:
        """Measure everything that there is time and memory for; nothing is timed if not even a row fits."""
        began = self.clock()
        shortest, median, heaviest = self._chosen()
        rehearse, timed = self.stepper.rehearse, self.found.timed
        if not self._if_time(began, SHORTEST, work_of(shortest), partial(rehearse, shortest)):
            return self.found
        if self.clock() - began + timed[0].seconds < self.enough:
            timed.clear()  # the first one also pays for threads, kernels and memory
            self._if_time(began, SHORTEST, work_of(shortest), partial(rehearse, shortest))
        self._if_time(began, MEDIAN, work_of(median), partial(rehearse, median))
        self._if_time(began, HEAVIEST, work_of(heaviest), partial(rehearse, heaviest))
        self._forward(began, median)
        self._steps(began)
        self._save()
        return self.found

    def _chosen(self) -> tuple[MicroBatch, MicroBatch, MicroBatch]:
        """Choose the three; the heaviest may be the longest row alone."""
        plan, rows = self.job.plan, self.job.train
        steps = range(1, min(plan.steps, LOOKED_AT) + 1)
        batches = [
            batch
            for step in steps
            for batch in laid_out(window_rows(plan, rows, step), self.layout, self.tokens)
        ]
        batches.sort(key=lambda batch: self.flops.of(work_of(batch)))
        lengths = lengths_of(rows)
        short, long = rows[int(lengths.argmin())], rows[int(lengths.argmax())]
        alone = self.layout.collate([long])
        heaviest = max(batches[-1], alone, key=lambda batch: batch.input_ids.numel())
        return self.layout.collate([short]), batches[len(batches) // 2], heaviest

    def _if_time(self, began: float, what: str, work: Work, compute: Callable[[], object]) -> bool:
        """Time something, unless it would end too late or does not fit in memory."""
        known = self.found.timed
        ends = self.clock() - began + (fit(known, self.flops).seconds(work, self.flops) if known else 0.0)
        if known and ends > self.enough:
            self.found.untimed.append(what)
            return False
        try:
            self._time(what, compute, work)
        except NoRoomError as error:
            self.found.no_room = error.batch.input_ids.numel()
            release()
            return False
        return True

    def _time(self, what: str, compute: Callable[[], object], work: Work) -> None:
        began = self.clock()
        compute()
        wait_for_device()
        self.found.timed.append(Timed(what, work, self.clock() - began, peak_memory_bytes()))

    def _forward(self, began: float, batch: MicroBatch) -> None:
        """Time the forward pass that validation makes."""
        whole = next((one for one in self.found.timed if one.work == work_of(batch)), None)
        if whole is None or self.clock() - began + whole.seconds > self.enough:
            return
        before = self.clock()
        validation_loss(self.job.model, [batch], self.job.accelerator)
        wait_for_device()
        self.found.forward_share = (self.clock() - before) / whole.seconds

    def _steps(self, began: float) -> None:
        """Make whole steps from the run's beginning, as training would."""
        plan = self.job.plan
        most = 0 if self.found.no_room else min(plan.steps, MOST_STEPS)
        for step in range(1, most + 1):
            batches = laid_out(window_rows(plan, self.job.train, step), self.layout, self.tokens)
            work = total([*map(work_of, batches), Work(steps=1)])
            if not self._if_time(began, f"step {step}", work, partial(self._step, step, batches)):
                return

    def _step(self, step: int, batches: Sequence[MicroBatch]) -> None:
        set_learning_rate(self.optimizer, self.job.plan.learning_rate(step))
        torch.manual_seed(self.job.plan.dropout_seed(step, self.job.accelerator.process_index))
        self.stepper.step(batches)

    def _save(self) -> None:
        """Commit a checkpoint as training does."""
        before = self.clock()
        state = CheckpointState(
            step=1,
            adapter=adapter_tensors(self.job.model),
            optimizer=optimizer_tensors(self.optimizer, self.parameters),
            progress={},
            identity=dict(self.job.identity),
        )
        save_checkpoint(self.job.run, state)
        seconds = self.clock() - before
        self.found.save_seconds = seconds if state.optimizer else CHECKPOINT_PARTS * seconds
