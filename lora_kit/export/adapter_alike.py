"""Which adapters have a sum, and why others have none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.artifacts.adapter import SavedAdapter
from lora_kit.errors import ModelError, Problem
from lora_kit.model.adapter_settings import DOWN, spec_of
from lora_kit.model.folder import listing
from lora_kit.model.token_rows import SETTING

ALIKE = (("base", "fingerprint"), ("base", "dtype"), ("quantization", "method"), ("tokenizer_fingerprint",))
PROMPT = ("template", "system")


@dataclass(frozen=True, slots=True)
class Part:
    """An adapter in a sum.

    Args:
        name: What to call it.
        adapter: The adapter.
        weight: What its update is multiplied by.
    """

    name: str
    adapter: SavedAdapter
    weight: float


def refuse_sum(parts: Sequence[Part]) -> None:
    """Find everything that stands in the way of a sum.

    Raises:
        ModelError: Other bases or tokenizers, DoRA, LoftQ, or trained rows of the embedding.
    """
    problems = [problem for part in parts for problem in _own_problems(part)]
    for part in parts[1:]:
        problems += _differences(part, parts[0])
    if problems:
        raise ModelError.collect(problems)


def _own_problems(part: Part) -> list[Problem]:
    """What is more than a sum of B A, or means nothing in another place."""
    where, spec = str(part.adapter.folder), spec_of(part.adapter.config)
    kinds = {
        "DoRA": spec.dora,
        "trained rows of the embedding": bool(part.adapter.config.get(SETTING)),
        "LoftQ, whose update holds what 4 bits lose of its base": part.adapter.init == "loftq",
    }
    cure = "merge it, and train on the merged model"
    problems = [
        Problem(f"an adapter with {kind} can't be part of a sum", where, cure=cure)
        for kind, there in kinds.items()
        if there
    ]
    if not (math.isfinite(part.weight) and part.weight != 0):
        problems.append(Problem(f"{part.weight} is no weight", where, cure="take a number that is not 0"))
    return problems


def _differences(part: Part, first: Part) -> list[Problem]:
    """Where an adapter belongs to another base than the first one."""
    where, cure = str(part.adapter.folder), "only adapters of one base, held alike, have a sum"
    facts = {
        " ".join(key).replace("_", " "): (_fact(part.adapter, key), _fact(first.adapter, key))
        for key in ALIKE
    }
    problems = [
        Problem(f"its {name} is {_short(own)}, that of {first.name} {_short(wanted)}", where, cure=cure)
        for name, (own, wanted) in facts.items()
        if own != wanted
    ]
    sizes = [{name: t.shape for name, t in each.adapter.tensors().items()} for each in (first, part)]
    other = [
        name
        for name in sizes[0].keys() & sizes[1].keys()
        if sizes[0][name][int(name.endswith(DOWN))] != sizes[1][name][int(name.endswith(DOWN))]
    ]
    if other:
        found = f"{len(other)} matrices have another size than in {first.name}: {listing(sorted(other), 2)}"
        problems.append(Problem(found, where, cure=cure))
    return problems


def refuse_folder(out: Path) -> None:
    """Refuse to write where something is.

    Raises:
        ModelError: There is something.
    """
    if out.exists():
        raise ModelError("is there already", where=str(out), cure="choose another --out, or remove it")


def other_prompts(parts: Sequence[Part]) -> tuple[str, ...]:
    """Say which adapters know other prompts than the first."""
    first = parts[0]
    return tuple(
        f"{part.name} was trained with another template or system prompt; the sum has those of {first.name}"
        for part in parts[1:]
        if any(part.adapter.provenance.get(key) != first.adapter.provenance.get(key) for key in PROMPT)
    )


def _fact(saved: SavedAdapter, key: Sequence[str]) -> object:
    fact: Any = saved.provenance
    for name in key:
        fact = fact.get(name) if isinstance(fact, Mapping) else None
    if fact is None and key == ALIKE[0]:  # PEFT's own folders know no fingerprint
        return saved.config.get("base_model_name_or_path")
    return fact


def _short(fact: object) -> str:
    return f"{fact:.12}" if isinstance(fact, str) else str(fact)
