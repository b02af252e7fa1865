"""What a saved adapter adds to each weight of its base."""

from collections.abc import Callable

from torch import Tensor

from lora_kit.artifacts.adapter import SavedAdapter
from lora_kit.errors import ModelError
from lora_kit.model.adapter_inject import MAGNITUDE, scaling


def refuse_original(saved: SavedAdapter) -> None:
    """Refuse to put LoftQ's adapter on weights that have lost nothing.

    Raises:
        ModelError: It began with LoftQ.
    """
    if saved.init == "loftq":
        raise ModelError(
            "LoftQ's adapter holds what 4 bits lose of its base; the original weights have lost nothing",
            where=str(saved.folder),
            cure="merge it into the dequantized weights: lora-kit merge without --base original",
        )


def adapter_deltas(saved: SavedAdapter) -> dict[str, Callable[[], Tensor]]:
    """Module name to a function that makes its update, scaling x BA, float32 ``(out, in)``."""
    tensors = saved.tensors()
    config = saved.config
    factor = scaling(config["r"], config["lora_alpha"], rank_stabilized=config.get("use_rslora", False))
    ending = ".lora_A.weight"
    prefix = "base_model.model."

    def delta(name: str) -> Callable[[], Tensor]:
        a, b = tensors[name + ending], tensors[name + ".lora_B.weight"]
        return lambda: (b.float() @ a.float()).mul_(factor)

    names = [name.removesuffix(ending) for name in tensors if name.endswith(ending)]
    return {name.removeprefix(prefix): delta(name) for name in names}


def adapter_lengths(saved: SavedAdapter) -> dict[str, Tensor]:
    """Module name to the lengths of the rows of DoRA's sum, float32 ``(out,)``; empty without DoRA."""
    lengths = {name: t.float() for name, t in saved.tensors().items() if name.endswith(MAGNITUDE)}
    return {name.removeprefix("base_model.model.").removesuffix(MAGNITUDE): t for name, t in lengths.items()}
