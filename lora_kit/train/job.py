"""What the training loop is given, and what it gives back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.data.layout import Layout, layout_of
from lora_kit.data.types import Example
from lora_kit.recipe.schema import DeadlineSpec
from lora_kit.train.clock import Session
from lora_kit.train.optim import OptimizerName
from lora_kit.train.plan import TrainPlan


class Known(NamedTuple):
    """What the end of a run is foretold from.

    Args:
        token_seconds: Of a token that needs no gradient.
        starting_seconds: From a command to a model with its rows.
        allotted_seconds: Of the whole run.
        device: torch's device type.
    """

    token_seconds: float
    starting_seconds: float
    allotted_seconds: float
    device: str = "cpu"


Foretold = Callable[[Known], float]  # seconds


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a run has to be over.

    Args:
        asked: In words: ``90 minutes``, ``23:00``.
        seconds: Of all sessions together; 0 with ``finish_by``.
        finish_by: A time of day; empty with ``seconds``.
        session: The process that trains now.
        afterwards: Seconds of what the command does after training.
    """

    asked: str
    seconds: float
    finish_by: str
    session: Session
    afterwards: Foretold


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
        optimizer: The recipe's ``engine.optimizer``.
        memory_limit: Most bytes that a step may take; None for no limit.
        deadline: When the run has to be over; None for never.
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
    optimizer: OptimizerName = "adamw"
    memory_limit: int | None = None
    deadline: Deadline | None = None

    @property
    def layout(self) -> Layout:
        """How its rows become micro-batches."""
        return layout_of(flattened=self.flattened, share_prefixes=self.share_prefixes)


def deadline_of(spec: DeadlineSpec, session: Session, afterwards: Foretold) -> Deadline | None:
    """Return when a run has to be over, if its recipe says so."""
    if spec.max_minutes is not None:
        return Deadline(f"{spec.max_minutes:g} minutes", 60 * spec.max_minutes, "", session, afterwards)
    return Deadline(spec.finish_by, 0.0, spec.finish_by, session, afterwards) if spec.finish_by else None


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
