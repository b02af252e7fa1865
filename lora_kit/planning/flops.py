"""What a token costs in multiplications and additions, from a model's config and the adapter's place alone.

A LoRA step needs no gradient of the frozen weights: 2 N flops a token forward and 2 N backward to the inputs,
N the weights of the linear layers; below the first adapter nothing goes back. The head is computed at trained
positions only, forward and its gradient in one pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_kit.model.predict_memory import MemoryNeed
from lora_kit.planning.work import Work
from lora_kit.recipe.schema import Recipe

FORWARD_CELL, BACKWARD_CELL = 4, 10  # products with a query-key pair and its value, a hidden unit and a layer


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of each thing that is counted.

    Args:
        token: Forward and backward through the layers.
        target: The head.
        cell: Attention, a pair of query and key.
        forward: Share of ``token`` that the forward pass alone takes.
    """

    token: float
    target: float
    cell: float
    forward: float

    def of(self, work: Work, *, cells: bool = True) -> float:
        """Return what some work takes; without ``cells`` all but the attention's own products."""
        rest = work.tokens * self.token + work.trained * self.target
        return rest + (work.cells * self.cell if cells else 0.0)


def flops_of(recipe: Recipe, config: Mapping[str, Any], need: MemoryNeed) -> Flops:
    """Count for a recipe.

    Args:
        recipe: The recipe.
        config: The base's config.json.
        need: What is predicted of its memory, which has the counts of parameters.
    """
    sizes = model_sizes(config)
    head = sizes.vocabulary * sizes.hidden
    linear = max(need.parameters - head * (1 if sizes.tied else 2), 0)
    share = adapted_share(recipe, sizes.layers)
    again = share if recipe.engine.memory == "low" else 0.0
    adapters = 6 * need.trained
    forward = 2 * linear
    token = forward * (1 + share + again) + adapters
    cell = sizes.layers * sizes.hidden * (FORWARD_CELL * (1 + again) + BACKWARD_CELL * share)
    return Flops(token, 4 * head, cell, (forward + adapters / 3) / token)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a model, under whichever keys its config has them."""

    hidden: int
    layers: int
    vocabulary: int
    tied: bool


def model_sizes(config: Mapping[str, Any]) -> Sizes:
    """Read the sizes from config.json, transformers' defaults filled in."""
    from transformers import CONFIG_MAPPING

    made = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    tied = bool(made.tie_word_embeddings)
    return Sizes(made.hidden_size, made.num_hidden_layers, made.vocab_size, tied)


def adapted_share(recipe: Recipe, layers: int) -> float:
    """Return the share of the layers that are at or above the first adapter."""
    if recipe.lora.layers == "all":
        return 1.0
    return min(int(recipe.lora.layers.removeprefix("last-")) / layers, 1.0)
