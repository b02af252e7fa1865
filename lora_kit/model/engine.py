"""What a recipe's engine section changes in a model's forward pass, remembered on the model itself."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from lora_kit.model.bare import bare_model
from lora_kit.model.machine import autocast_type, machine_of
from lora_kit.model.offload import offloaded
from lora_kit.model.trunk_cache import TrunkCache

PLACE = "lora_kit_engine"


@dataclass(frozen=True, slots=True)
class Engine:
    """How a forward pass runs.

    Args:
        trunk: Where the frozen layers' output is kept; None to compute them each time.
        offload: Whether what is saved for the backward pass waits in the host's memory.
        autocast: Number type of the products; None for that of their operands.
    """

    trunk: TrunkCache | None = None
    offload: bool = False
    autocast: torch.dtype | None = None


@contextmanager
def running(base: PreTrainedModel) -> Iterator[Engine]:
    """Prepare a forward pass of a model without peft's wrapper."""
    engine = engine_of(base)
    with ExitStack() as stack:
        if engine.autocast is not None:
            stack.enter_context(torch.autocast(base.device.type, engine.autocast))
        if engine.offload:
            stack.enter_context(offloaded(base))
        yield engine


def engine_of(base: PreTrainedModel) -> Engine:
    """Return how a model without peft's wrapper runs; by default plainly."""
    found: Engine = getattr(base, PLACE, Engine())
    return found


def keep_trunk(model: PreTrainedModel | PeftModel, trunk: TrunkCache) -> None:
    """Let every forward pass of a model start from the kept output of its frozen layers."""
    _remember(bare_model(model), trunk=trunk)


def offload_activations(model: PreTrainedModel | PeftModel) -> None:
    """Let what a forward pass saves for the backward pass wait in the host's memory."""
    _remember(bare_model(model), offload=True)


def choose_number_type(model: PreTrainedModel | PeftModel) -> None:
    """Let a bfloat16 base on a GPU make its products in bfloat16, and the adapters' too."""
    base = bare_model(model)
    chosen = autocast_type(machine_of(base.device), base.get_input_embeddings().weight.dtype)
    _remember(base, autocast=chosen)


def _remember(base: PreTrainedModel, **changes: Any) -> None:  # noqa: ANN401 - Engine's fields
    setattr(base, PLACE, replace(engine_of(base), **changes))
