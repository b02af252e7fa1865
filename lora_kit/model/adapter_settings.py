"""The adapter's settings as peft writes them: adapter_config.json, read strictly."""

from collections.abc import Mapping, Sequence
from typing import Any

from peft import LoraConfig, TaskType
from pydantic import ValidationError

from lora_kit.errors import ModelError, Problem
from lora_kit.model.folder import listing
from lora_kit.model.token_rows import SETTING
from lora_kit.recipe.schema import LoraSpec

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
UNUSED_KEYS = frozenset({"base_model_name_or_path", "revision", "inference_mode", "peft_version"})
CHECKED_LATER = frozenset({SETTING})  # where the model is at hand
REQUIRED_VALUES: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none",),
    # Other first values, such as PiSSA's, belong to a base that was changed.
    "init_lora_weights": (True, False, "gaussian"),
}
# adapter_config.json's keys, and what they are called in a recipe.
READ = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "use_rslora": "rank_stabilized",
    "use_dora": "dora",
}


def check_matrices(config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> None:
    """Check that every A has its B, both of the rank that the settings name.

    Args:
        config: Content of adapter_config.json.
        shapes: Of the tensors of adapter_model.safetensors, by name.

    Raises:
        ModelError: One is missing, or has another rank.
    """
    rank = spec_of(config).rank
    modules = {name.removesuffix(end) for name in shapes for end in (DOWN, UP) if name.endswith(end)}
    wrong = sorted(
        module
        for module in modules
        if (shapes.get(module + DOWN, (0,))[0], shapes.get(module + UP, (0, 0))[1]) != (rank, rank)
    )
    if wrong:
        raise ModelError(
            f"{len(wrong)} layers have no pair of matrices of rank {rank}: {listing(wrong, 2)}",
            where="adapter_model.safetensors",
            cure="get the adapter again from where it was made",
        )


def lora_config(spec: LoraSpec, targets: tuple[str, ...]) -> LoraConfig:
    """Return peft's settings for a recipe's adapter on these layers; first values are ours to make."""
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(targets),
        use_rslora=spec.rank_stabilized,
        use_dora=spec.dora,
    )


def spec_of(config: Mapping[str, Any]) -> LoraSpec:
    """Read adapter_config.json: every key is acted on, or says nothing, or has its neutral value."""
    where, cure = (
        "adapter_config.json",
        "merge it with the tool that made it, and use the merged model as the base",
    )
    neutral = LoraConfig().to_dict()
    problems = []
    for key, value in config.items():
        if key in REQUIRED_VALUES:
            known = value in REQUIRED_VALUES[key]
        else:
            known = (
                key in UNUSED_KEYS | CHECKED_LATER
                or key in READ
                or value in (None, False, {}, [])
                or value == neutral.get(key)
            )
        if not known:
            problems.append(Problem(f"{value!r} is not supported", where, key, cure))
    if not isinstance(config.get("target_modules"), list):
        problems.append(Problem("not a list of module names", where, "target_modules", cure))
    if problems:
        raise ModelError.collect(problems)
    try:
        return LoraSpec.model_validate(
            {ours: config[theirs] for theirs, ours in READ.items() if theirs in config}
        )
    except ValidationError as error:
        names = {ours: theirs for theirs, ours in READ.items()}
        first = error.errors()[0]
        raise ModelError(first["msg"], where=where, key=names.get(str(first["loc"][0]), "")) from None
