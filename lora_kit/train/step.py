"""One optimizer step over a window of examples.

Each micro-batch gives a sum of nats; the only division, by the window's trained
tokens, happens here. So any split of the window into micro-batches or processes
gives the same gradient (means of micro-batch means do not: the error was 107 %
of the gradient on four uneven rows).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lora_kit.data.collate import MicroBatch
from lora_kit.errors import DivergedError, MachineError
from lora_kit.model.forward import example_nats, sum_nats
from lora_kit.train.job import TrainJob
from lora_kit.train.out_of_memory import NoRoomError, compute_over, is_out_of_memory


class StepResult(NamedTuple):
    """What one step measured.

    Args:
        loss: Nats per trained token over the window.
        grad_norm: Global norm before clipping.
        trained_tokens: Targets in the window.
        total_tokens: Tokens in the window, prompts included.
        shared_tokens: How many of these were computed with another row's.
        row_nats: Nats of each row, in the order of the micro-batches; where rows share a beginning, a target
            there is summed for each of them, as the gradient is.
    """

    loss: float
    grad_norm: float
    trained_tokens: int
    total_tokens: int
    shared_tokens: int = 0
    row_nats: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Stepper:
    """What stays the same from step to step.

    Args:
        model: The model with its adapter.
        parameters: The adapter's matrices.
        optimizer: AdamW over them.
        accelerator: Device and processes.
        max_grad_norm: Clip to this global norm; None for no clipping.
    """

    model: nn.Module
    parameters: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    max_grad_norm: float | None

    def step(self, micro_batches: Sequence[MicroBatch]) -> StepResult:
        """Update the adapter once.

        Args:
            micro_batches: The window's examples; this process computes its share.

        Raises:
            DivergedError: The loss or the gradient is not finite; nothing was updated.
            NoRoomError: A micro-batch does not fit in memory; nothing was updated, and no gradient is left.
            MachineError: The optimizer's own state does not fit.
        """
        trained = sum(len(batch.targets) for batch in micro_batches)
        nats, *row_nats = self._accumulate(micro_batches, trained).tolist()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        result = StepResult(
            nats / trained,
            float(norm),
            trained,
            sum(sum(batch.lengths) for batch in micro_batches),
            sum(batch.shared_tokens for batch in micro_batches),
            tuple(row_nats),
        )
        if not (math.isfinite(result.loss) and math.isfinite(result.grad_norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise self._diverged(result, micro_batches)
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
        self._update()
        return result

    def rehearse(self, batch: MicroBatch) -> None:
        """Compute the gradient of one micro-batch as a step does, on this process alone, and drop it.

        Raises:
            NoRoomError: It does not fit in memory.
        """
        self.model.train()
        fits = True
        try:
            self._gradient(batch.to(self.accelerator.device), len(batch.targets))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        self.optimizer.zero_grad(set_to_none=True)
        if not fits:
            raise NoRoomError(batch)

    def _update(self) -> None:
        """Apply the gradients. Not healed: half of the matrices may have moved when an allocation fails."""
        try:
            self.optimizer.step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise MachineError(
                "the optimizer's state does not fit in memory",
                cure="free memory and run it again to go on, or lower lora.rank",
            ) from None
        self.optimizer.zero_grad(set_to_none=True)

    def _gradient(self, batch: MicroBatch, trained: int) -> Tensor:
        """Add one micro-batch's part to the gradients; return its nats, (1 + E,): all, and each row's."""
        loss = sum_nats(self.model, batch)
        self.accelerator.backward(loss.nats / trained)
        return torch.cat([loss.nats.detach()[None], loss.of_examples])

    def _accumulate(self, micro_batches: Sequence[MicroBatch], trained: int) -> Tensor:
        """Add up gradients and nats over micro-batches and processes; return the window's nats, as above."""
        self.model.train()
        try:
            found = compute_over(
                micro_batches,
                lambda batch: self._gradient(batch, trained),
                self.accelerator,
                shared_out=True,
            )
        except NoRoomError:
            self.optimizer.zero_grad(set_to_none=True)
            raise
        nats = _window_nats(micro_batches, found)
        if self.accelerator.num_processes > 1:
            self._reduce()
            nats = self.accelerator.reduce(nats.to(self.accelerator.device), reduction="sum")
        return nats

    def _reduce(self) -> None:
        """Sum the gradients over the processes, in one message."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        flat: Tensor = self.accelerator.reduce(torch.cat([g.flatten() for g in grads]), reduction="sum")
        for parameter, piece in zip(self.parameters, flat.split([g.numel() for g in grads]), strict=True):
            parameter.grad = piece.view_as(parameter)

    def _diverged(self, result: StepResult, micro_batches: Sequence[MicroBatch]) -> DivergedError:
        rows = [origin for batch in micro_batches for origin in self._bad_rows(batch)]
        everyone = [origin for batch in micro_batches for origin in batch.origins]
        names = ", ".join(rows or everyone)
        return DivergedError(
            f"the loss is {result.loss:g} and the gradient norm {result.grad_norm:g} on rows {names}",
            cure="look at these rows, or lower train.learning_rate",
        )

    def _bad_rows(self, batch: MicroBatch) -> list[str]:
        """Origins of the rows whose own loss is not finite."""
        nats = example_nats(self.model, batch.to(self.accelerator.device)).tolist()
        return [origin for origin, value in zip(batch.origins, nats, strict=True) if not math.isfinite(value)]


def stepper_of(
    job: TrainJob, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> Stepper:
    """Return what makes a job's steps.

    Args:
        job: The run.
        parameters: The adapter's matrices by name.
        optimizer: Over them.
    """
    return Stepper(
        job.model, list(parameters.values()), optimizer, job.accelerator, job.plan.spec.max_grad_norm
    )


def _window_nats(micro_batches: Sequence[MicroBatch], found: Mapping[int, Tensor]) -> Tensor:
    """Lay out what this process computed as (1 + R,): the sum, then each row's; 0 for what others compute."""
    starts = list(accumulate((len(batch.lengths) for batch in micro_batches), initial=1))
    nats = torch.zeros(starts[-1], dtype=torch.float64)
    for index, part in found.items():
        nats[0] += part[0]
        nats[starts[index] : starts[index + 1]] = part[1:]
    return nats


def validation_loss(model: nn.Module, micro_batches: Sequence[MicroBatch], accelerator: Accelerator) -> float:
    """Nats per trained token over held-out rows: a sum over a sum, never a mean of means.

    Raises:
        NoRoomError: A micro-batch does not fit in memory.
    """
    model.eval()
    found = compute_over(
        micro_batches, lambda batch: example_nats(model, batch).sum(), accelerator, shared_out=False
    )
    return float(sum(found.values())) / sum(len(batch.targets) for batch in micro_batches)
