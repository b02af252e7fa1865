"""Put LoRA on exactly the layers that were asked for, and carry its weights in and out under PEFT's names.

LoRA (arXiv 2106.09685) adds scaling x B A to a frozen matrix. peft makes the layers; what it lets pass in
silence (missing or extra tensors, NaN, unknown config keys) is refused here. The first A is a pure function
of (seed, name, shape), so no random number drawn elsewhere changes a run.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import sqrt
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_kit.errors import ModelError, Problem
from lora_kit.model.adapter_settings import lora_config, spec_of
from lora_kit.model.adapter_targets import check_targets, target_names
from lora_kit.model.base import BaseFiles
from lora_kit.model.family import Family
from lora_kit.model.folder import listing
from lora_kit.model.lora_layers import quicken
from lora_kit.model.lora_ops import ADAPTER
from lora_kit.model.lora_start import begin_with_lost, begin_with_principal, starts
from lora_kit.model.quiet import quiet_libraries
from lora_kit.model.standby import without_quantized_layers
from lora_kit.model.stored_weights import reader_of
from lora_kit.model.token_rows import SETTING, attach_rows, row_parameters, train_rows
from lora_kit.recipe.schema import LoraSpec

MAGNITUDE = ".lora_magnitude_vector"  # how the name of DoRA's tensor ends, of shape (out,)


def scaling(rank: int, alpha: float, *, rank_stabilized: bool) -> float:
    """Return the factor of B A: alpha / rank, or alpha / sqrt(rank) if rank-stabilized (arXiv 2312.03732)."""
    return alpha / sqrt(rank) if rank_stabilized else alpha / rank


def add_adapter(
    model: PreTrainedModel,
    spec: LoraSpec,
    family: Family,
    *,
    seed: int,
    files: BaseFiles | None = None,
    tokens: Sequence[int] = (),
) -> PeftModel:
    """Add a fresh adapter: B = 0, A uniform as in peft, weights float32 (float64 if the model is).

    Args:
        model: The frozen base; changed in place.
        spec: The recipe's ``lora`` section.
        family: The base's family, which knows the roles ``attention`` and ``mlp``.
        seed: Seed of A.
        files: The base's files, of which LoftQ reads what 4 bits don't hold.
        tokens: Ids whose rows of embedding and head are trained as well.

    Returns:
        The model with the adapter active and nothing else trainable, in the mode (train or eval) it was in.

    Raises:
        ModelError: A target that matches no layer, or one that can't have an adapter.
    """
    peft_model = _inject(model, spec, target_names(model, spec, family))
    with torch.no_grad():
        for name, parameter in adapter_parameters(peft_model).items():
            if not name.endswith(MAGNITUDE):  # of W, as peft has computed it, for B = 0
                parameter.copy_(first_value(name, parameter, seed))
    if spec.init == "pissa":
        begin_with_principal(peft_model)
    if spec.init == "loftq":
        assert files is not None, "LoftQ reads the base's files"
        begin_with_lost(peft_model, reader_of(files, torch.float32))
    if tokens:
        train_rows(peft_model, tokens)
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
    spec = spec_of(config)
    targets = tuple(spec.targets)
    check_targets(model, targets)
    peft_model = _inject(model, spec, targets)
    if config.get(SETTING):
        attach_rows(peft_model, config[SETTING])
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
    if config.get(SETTING):
        raise ModelError(
            "trains rows of the embedding, which it can't share with other adapters",
            where="adapter_config.json",
            key=SETTING,
            cure="name it alone, or merge it first",
        )
    spec = spec_of(config)
    active, trainable = peft_model.active_adapter, [p for p in peft_model.parameters() if p.requires_grad]
    training = peft_model.training
    with quiet_libraries(), torch.random.fork_rng(devices=[]):
        peft_model.add_adapter(name, lora_config(spec, tuple(spec.targets)))
    load_adapter_tensors(peft_model, tensors, name)
    peft_model.set_adapter(active)
    peft_model.requires_grad_(requires_grad=False).train(training)
    for parameter in trainable:
        parameter.requires_grad_()


def adapter_parameters(peft_model: PeftModel, name: str = ADAPTER) -> dict[str, nn.Parameter]:
    """Return what is trained of the layers under the names that it has in adapter_model.safetensors."""
    found = {}
    for path, parameter in peft_model.named_parameters():
        module, mark, leaf = path.partition(f".{name}.")
        kind = module.rpartition(".")[2]
        if mark and (kind in {"lora_A", "lora_B"} or module.endswith(MAGNITUDE)):
            found[module if kind not in {"lora_A", "lora_B"} else f"{module}.{leaf}"] = parameter
    return found


def adapter_tensors(peft_model: PeftModel) -> dict[str, Tensor]:
    """Return a copy of the adapter: PEFT's names, contiguous, CPU, float32 (float64 if the model is).

    What PiSSA began with is part of it: the rank is twice that of the training.
    """
    return {
        name: torch.cat([part.detach() for part in parts], side).cpu().contiguous()
        for name, (parts, side) in _saved_parts(peft_model, ADAPTER).items()
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
    places = _saved_parts(peft_model, name)
    shared = places.keys() & tensors.keys()
    findings = {
        "tensors are missing": places.keys() - tensors.keys(),
        "tensors are unexpected": tensors.keys() - places.keys(),
        "tensors have another shape": {
            name for name in shared if tensors[name].shape != _shape_of(*places[name])
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
        for key, (parts, side) in places.items():
            pieces = tensors[key].split([part.shape[side] for part in parts], side)
            for part, piece in zip(parts, pieces, strict=True):
                part.copy_(piece)


def _saved_parts(peft_model: PeftModel, name: str) -> dict[str, tuple[tuple[Tensor, ...], int]]:
    """Saved name to the tensors that lie side by side in it, and along which side."""
    parameters = adapter_parameters(peft_model, name)
    parts: dict[str, tuple[tuple[Tensor, ...], int]] = {key: ((p,), 0) for key, p in parameters.items()}
    for module, start in starts(peft_model):
        down, up = f"{module}.lora_A.weight", f"{module}.lora_B.weight"
        parts |= {down: ((parameters[down], start.down), 0), up: ((parameters[up], start.up), 1)}
    if name == ADAPTER:
        parts |= {key: ((rows,), 0) for key, rows in row_parameters(peft_model).items()}
    return parts


def _shape_of(parts: tuple[Tensor, ...], side: int) -> torch.Size:
    shape = list(parts[0].shape)
    shape[side] = sum(part.shape[side] for part in parts)
    return torch.Size(shape)


def adapter_config(peft_model: PeftModel, base_name: str) -> dict[str, Any]:
    """Return the content of adapter_config.json, as peft itself would write it for inference.

    It belongs to :func:`adapter_tensors`: after PiSSA the rank is doubled, alpha such that the scaling stays.

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
    if next(starts(peft_model), None):
        rank, alpha, stabilized = config["r"], config["lora_alpha"], config["use_rslora"]
        factor = scaling(rank, alpha, rank_stabilized=stabilized)
        plain |= {"r": 2 * rank, "lora_alpha": 2 * rank * factor if stabilized else 2 * alpha}
        plain["use_rslora"] = False
    return dict(sorted((config | plain).items()))


def _inject(model: PreTrainedModel, spec: LoraSpec, targets: tuple[str, ...]) -> PeftModel:
    training = model.training
    # peft draws first values that nobody uses.
    with quiet_libraries(), torch.random.fork_rng(devices=[]), without_quantized_layers():
        peft_model = get_peft_model(model, lora_config(spec, targets))
    quicken(peft_model)
    return peft_model.train(training)


def first_value(name: str, parameter: Tensor, seed: int) -> Tensor:
    """Return what a matrix begins with, by its name in adapter_model.safetensors: zeros for B, float32 for A.

    Drawn on the CPU, so that every device starts from the same numbers.
    """
    if ".lora_B." in name:
        return torch.zeros_like(parameter)
    digest = sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    bound = 1 / sqrt(parameter.shape[1])  # what peft's kaiming_uniform_(a=sqrt(5)) comes to
    return torch.empty(parameter.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
