"""Which layers get an adapter: roles become module names, and every name has to hit what it was meant for.

peft is content when one name out of several matches something, and only warns about LoRA on a tied head,
whose merged model differs from the trained one by whole logits; both are errors here.
"""

import re
from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel

from lora_kit.errors import ModelError, Problem
from lora_kit.model.family import Family
from lora_kit.model.folder import listing
from lora_kit.recipe.schema import LoraSpec

KEY = "lora.targets"
LAYERS = "lora.layers"
INSIDE = "use `all-linear`, or name linear layers inside the blocks"


def target_names(model: PreTrainedModel, spec: LoraSpec, family: Family) -> tuple[str, ...]:
    """Turn the recipe's targets into module suffixes, each checked against the model's layers.

    With ``lora.layers`` they are whole paths, which any version of peft reads like suffixes.

    Raises:
        ModelError: A target that matches no layer, or one that can't have an adapter.
    """
    roles = {"all-linear": family.attention + family.mlp, "attention": family.attention, "mlp": family.mlp}
    names = roles[spec.targets] if isinstance(spec.targets, str) else tuple(dict.fromkeys(spec.targets))
    check_targets(model, names)
    if spec.layers == "all":
        return names
    return _in_upper_layers(model, names, int(spec.layers.removeprefix("last-")))


def _in_upper_layers(model: PreTrainedModel, names: Iterable[str], count: int) -> tuple[str, ...]:
    """Return the paths of the targets in the last ``count`` decoder layers."""
    depth = model.config.num_hidden_layers
    if count > depth:
        raise ModelError(
            f"last-{count}, but the model has {depth} layers", key=LAYERS, cure=f"use last-{depth} or all"
        )
    found: list[str] = []
    for name in names:
        paths = [path for path, _ in model.named_modules() if f".{path}".endswith(f".{name}")]
        upper = [path for path in paths if (place := _layer_of(path)) is not None and place >= depth - count]
        if not upper:
            raise ModelError(f"'{name}' is in none of the last {count} layers", key=LAYERS, cure="use all")
        found += upper
    return tuple(dict.fromkeys(found))


def _layer_of(path: str) -> int | None:
    """Number of the decoder layer that a module is in: the first number in its path."""
    match = re.search(r"\.(\d+)\.", path)
    return int(match[1]) if match else None


def check_targets(model: PreTrainedModel, names: Iterable[str]) -> None:
    """Check that each name is the suffix of linear layers and of nothing else.

    Raises:
        ModelError: As for :func:`target_names`.
    """
    problems = [problem for name in names if (problem := _problem(model, name)) is not None]
    if problems:
        raise ModelError.collect(problems)


def _problem(model: PreTrainedModel, name: str) -> Problem | None:
    matches = {path: module for path, module in model.named_modules() if f".{path}".endswith(f".{name}")}
    ends = [model.get_output_embeddings(), model.get_input_embeddings()]
    if any(module in ends for module in matches.values()):
        tied = getattr(model.config, "tie_word_embeddings", False)
        merged = "its weights are tied, so the merged model would differ from the trained one"
        why = merged if tied else "it is frozen"
        cure = (
            f"{INSIDE}; for rows of some tokens use lora.train_tokens (trainable_token_indices in peft), for "
            "whole matrices peft's modules_to_save"
        )
        return Problem(f"the head or embedding '{name}' can't have an adapter: {why}", "", KEY, cure)
    if not matches:
        known = ", ".join(sorted({path.rpartition(".")[2] for path in _linear_layers(model)}))
        return Problem(f"'{name}' matches no layer", "", KEY, f"known: {known}")
    wrong = [path for path, module in matches.items() if not isinstance(module, nn.Linear)]
    if wrong:
        return Problem(f"'{name}' matches {listing(wrong, 2)}, not only linear layers", "", KEY, INSIDE)
    return None


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Paths of the linear layers (bitsandbytes' are subclasses) except the head."""
    head = model.get_output_embeddings()
    return [
        path for path, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not head
    ]
