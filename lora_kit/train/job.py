"""What the training loop is given, and what it gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.data.types import Example
from lora_kit.train.optim import OptimizerName
from lora_kit.train.plan import TrainPlan


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
