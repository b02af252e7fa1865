"""Which layers get an adapter: roles become module names, and every name has to hit what it was meant for.

peft is content when one name out of several matches something, and only warns about LoRA on a tied head,
whose merged model differs from the trained one by whole logits; both are errors here.
"""

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel

from lora_kit.errors import ModelError, Problem
from lora_kit.model.family import Family
from lora_kit.model.folder import listing
from lora_kit.recipe.schema import LoraSpec

KEY = "lora.targets"
INSIDE = "use `all-linear`, or name linear layers inside the blocks"


def target_names(model: PreTrainedModel, spec: LoraSpec, family: Family) -> tuple[str, ...]:
    """Turn the recipe's targets into module suffixes, each checked against the model's layers.

    Raises:
        ModelError: A target that matches no layer, or one that can't have an adapter.
    """
    roles = {"all-linear": family.attention + family.mlp, "attention": family.attention, "mlp": family.mlp}
    names = roles[spec.targets] if isinstance(spec.targets, str) else tuple(dict.fromkeys(spec.targets))
    check_targets(model, names)
    return names


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
        cure = f"{INSIDE}; new tokens need peft's modules_to_save or trainable_token_indices"
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
