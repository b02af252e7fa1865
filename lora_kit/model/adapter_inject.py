"""Put LoRA on exactly the layers that were asked for, and carry its weights in and out under PEFT's names.

LoRA (arXiv 2106.09685) adds scaling x B A to a frozen matrix. peft makes the layers; what it lets pass in
silence (missing or extra tensors, NaN, unknown config keys) is refused here. The first A is a pure function
of (seed, name, shape), so no random number drawn elsewhere changes a run.
"""

from collections.abc import Mapping
from hashlib import sha256
from math import sqrt
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_kit.errors import ModelError, Problem
from lora_kit.model.adapter_targets import check_targets, target_names
from lora_kit.model.family import Family
from lora_kit.model.folder import listing
from lora_kit.model.lora_layers import quicken
from lora_kit.model.lora_ops import ADAPTER
from lora_kit.model.quiet import quiet_libraries
from lora_kit.recipe.schema import LoraSpec

UNUSED_KEYS = frozenset({"base_model_name_or_path", "revision", "inference_mode", "peft_version"})
REQUIRED_VALUES: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none",),
    # Other first values, such as PiSSA's, belong to a base that was changed.
    "init_lora_weights": (True, False, "gaussian"),
}


def scaling(rank: int, alpha: float, *, rank_stabilized: bool) -> float:
    """Return the factor of B A: alpha / rank, or alpha / sqrt(rank) if rank-stabilized (arXiv 2312.03732)."""
    return alpha / sqrt(rank) if rank_stabilized else alpha / rank


def add_adapter(model: PreTrainedModel, spec: LoraSpec, family: Family, *, seed: int) -> PeftModel:
    """Add a fresh adapter: B = 0, A uniform as in peft, weights float32 (float64 if the model is).

    Args:
        model: The frozen base; changed in place.
        spec: The recipe's ``lora`` section.
        family: The base's family, which knows the roles ``attention`` and ``mlp``.
        seed: Seed of A.

    Returns:
        The model with the adapter active and nothing else trainable, in the mode (train or eval) it was in.

    Raises:
        ModelError: A target that matches no layer, or one that can't have an adapter.
    """
    peft_model = _inject(model, spec, target_names(model, spec, family))
    with torch.no_grad():
        for name, parameter in adapter_parameters(peft_model).items():
            parameter.copy_(_first_value(name, parameter, seed))
    return peft_model


def attach_adapter(
    model: PreTrainedModel, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> PeftModel:
    """Put a saved adapter on its base; the caller has compared the base's fingerprint.

    Args:
        model: The frozen base; changed in place.
        config: Content of adapter_config.json.
        tensors: Content of adapter_model.safetensors.

    Raises:
        ModelError: A config key that lora_kit does not know, or tensors that are not exactly the adapter's.
    """
    spec = _spec_of(config)
    targets = tuple(spec.targets)
    check_targets(model, targets)
    peft_model = _inject(model, spec, targets)
    load_adapter_tensors(peft_model, tensors)
    return peft_model


def attach_another(
    peft_model: PeftModel, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Put one more adapter on a base that has one; the active one stays active.

    Args:
        peft_model: What :func:`attach_adapter` returned.
        name: Of the new adapter, for ``set_adapter``.
        config: Content of its adapter_config.json.
        tensors: Content of its adapter_model.safetensors.

    Raises:
        ModelError: As for :func:`attach_adapter`, or the name is taken.
    """
    if name in peft_model.peft_config:
        raise ModelError(f"there is an adapter '{name}' already")
    spec = _spec_of(config)
    active, trainable = peft_model.active_adapter, [p for p in peft_model.parameters() if p.requires_grad]
    training = peft_model.training
    with quiet_libraries(), torch.random.fork_rng(devices=[]):
        peft_model.add_adapter(name, _lora_config(spec, tuple(spec.targets)))
    load_adapter_tensors(peft_model, tensors, name)
    peft_model.set_adapter(active)
    peft_model.requires_grad_(requires_grad=False).train(training)
    for parameter in trainable:
        parameter.requires_grad_()


def adapter_parameters(peft_model: PeftModel, name: str = ADAPTER) -> dict[str, nn.Parameter]:
    """Return an adapter's A and B matrices under the names that they have in adapter_model.safetensors."""
    mark = f".{name}."
    return {
        name.replace(mark, "."): parameter
        for name, parameter in peft_model.named_parameters()
        if f".lora_A{mark}" in name or f".lora_B{mark}" in name
    }


def adapter_tensors(peft_model: PeftModel) -> dict[str, Tensor]:
    """Return a copy of the adapter: PEFT's names, contiguous, CPU, float32 (float64 if the model is)."""
    parameters = adapter_parameters(peft_model)
    return {
        name: parameter.detach().to("cpu", copy=True).contiguous() for name, parameter in parameters.items()
    }


def load_adapter_tensors(peft_model: PeftModel, tensors: Mapping[str, Tensor], name: str = ADAPTER) -> None:
    """Overwrite the adapter's weights in place.

    Args:
        peft_model: A model with an adapter.
        tensors: All its tensors and no other, as :func:`adapter_tensors` names them.
        name: Of the adapter, where there are several.

    Raises:
        ModelError: Missing or unexpected tensors, other shapes, numbers that are not finite.
    """
    parameters = adapter_parameters(peft_model, name)
    shared = parameters.keys() & tensors.keys()
    findings = {
        "tensors are missing": parameters.keys() - tensors.keys(),
        "tensors are unexpected": tensors.keys() - parameters.keys(),
        "tensors have another shape": {
            name for name in shared if tensors[name].shape != parameters[name].shape
        },
        "tensors hold NaN or infinity": {name for name in shared if not tensors[name].isfinite().all()},
    }
    problems = [
        Problem(f"{len(names)} {what}: {listing(sorted(names))}", "adapter_model.safetensors")
        for what, names in findings.items()
        if names
    ]
    if problems:
        raise ModelError.collect(problems)
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(tensors[key])


def adapter_config(peft_model: PeftModel, base_name: str) -> dict[str, Any]:
    """Return the content of adapter_config.json, as peft itself would write it for inference.

    Args:
        peft_model: A model with an adapter.
        base_name: What peft loads the base from: a hub id or a folder.
    """
    config: dict[str, Any] = peft_model.peft_config[ADAPTER].to_dict()
    plain = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }
    return dict(sorted((config | plain).items()))


def _lora_config(spec: LoraSpec, targets: tuple[str, ...]) -> LoraConfig:
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(targets),
        use_rslora=spec.rank_stabilized,
    )


def _inject(model: PreTrainedModel, spec: LoraSpec, targets: tuple[str, ...]) -> PeftModel:
    training = model.training
    with quiet_libraries(), torch.random.fork_rng(devices=[]):  # peft draws first values that nobody uses
        peft_model = get_peft_model(model, _lora_config(spec, targets))
    quicken(peft_model)
    return peft_model.train(training)


def _first_value(name: str, parameter: Tensor, seed: int) -> Tensor:
    """Draw on the CPU, so that every device starts from the same numbers."""
    if ".lora_B." in name:
        return torch.zeros_like(parameter)
    digest = sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    bound = 1 / sqrt(parameter.shape[1])  # what peft's kaiming_uniform_(a=sqrt(5)) comes to
    return torch.empty(parameter.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)


def _spec_of(config: Mapping[str, Any]) -> LoraSpec:
    """Read adapter_config.json: every key is acted on, or says nothing, or has its neutral value."""
    where, cure = (
        "adapter_config.json",
        "merge it with the tool that made it, and use the merged model as the base",
    )
    read = {
        "r": "rank",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
        "target_modules": "targets",
        "use_rslora": "rank_stabilized",
    }
    neutral = LoraConfig().to_dict()
    problems = []
    for key, value in config.items():
        if key in REQUIRED_VALUES:
            known = value in REQUIRED_VALUES[key]
        else:
            known = (
                key in UNUSED_KEYS
                or key in read
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
            {ours: config[theirs] for theirs, ours in read.items() if theirs in config}
        )
    except ValidationError as error:
        names = {ours: theirs for theirs, ours in read.items()}
        first = error.errors()[0]
        raise ModelError(first["msg"], where=where, key=names.get(str(first["loc"][0]), "")) from None
