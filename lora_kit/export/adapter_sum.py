"""Weighted sums of adapters, and another alpha for one, exact: matrices go side by side, no rank is cut.

Of adapters with updates s B A and weights w, B of the sum is [w1 s1 B1, w2 s2 B2, ...] and A is A1, A2, ...
one below the other; its rank is the sum of the ranks and its scaling 1: what peft's ``add_weighted_adapter``
calls ``cat``. A negative weight takes away (task arithmetic, arXiv 2212.04089).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, promote_types

from lora_kit.artifacts.adapter import CARD, CONFIG, PROVENANCE, WEIGHTS, SavedAdapter, save_adapter
from lora_kit.artifacts.manifest import seal
from lora_kit.artifacts.model_card import model_card
from lora_kit.errors import ModelError
from lora_kit.export.adapter_alike import Part, other_prompts, refuse_folder, refuse_sum
from lora_kit.model.adapter_inject import scaling
from lora_kit.model.adapter_settings import DOWN, UP, check_matrices, spec_of

PREFIX = "base_model.model."
ROUNDING = 1e-6  # of float32, as a share of the length of what the parts give
KEPT = ("base", "quantization", "template", "system", "tokenizer_fingerprint", "encoder_fingerprint")
WRITTEN_ANEW = {CONFIG, WEIGHTS, PROVENANCE, CARD, "recipe.yaml"}

Update: TypeAlias = dict[str, tuple[Tensor, Tensor]]  # module to A, and B in float64 with all factors


@dataclass(frozen=True, slots=True)
class NewAdapter:
    """An adapter that was computed from others.

    Args:
        folder: Where it is.
        rank: Of its matrices.
        alpha: Its scaling is alpha / rank, or alpha / sqrt(rank) if rank-stabilized.
        modules: Layers that it changes.
        largest_difference: Largest distance, over all layers, of what it adds for a random input from what
            its parts add in float64, as a share of their lengths.
        notes: What the user should know.
    """

    folder: str
    rank: int
    alpha: float
    modules: int
    largest_difference: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def sum_adapters(parts: Sequence[Part], out: Path) -> NewAdapter:
    """Write the weighted sum of adapters as an adapter, after comparing what it adds with what they add.

    Args:
        parts: At least one; template, system prompt and tokenizer files come from the first.
        out: Folder to create.

    Raises:
        ModelError: They have no sum: other bases or tokenizers, DoRA, LoftQ, trained rows of the embedding;
            or ``out`` is there already.
        MachineError: The folder can't be written.
    """
    refuse_folder(out)
    refuse_sum(parts)
    ranks = [spec_of(part.adapter.config).rank for part in parts]
    updates = [_update(part.adapter, part.weight) for part in parts]
    shapes = {name: (a.shape[1], b.shape[0]) for update in updates for name, (a, b) in update.items()}
    tensors: dict[str, Tensor] = {}
    for module, (columns, rows) in shapes.items():
        pairs = [
            update.get(module) or (torch.zeros(rank, columns), torch.zeros(rows, rank))
            for update, rank in zip(updates, ranks, strict=True)
        ]
        tensors[PREFIX + module + DOWN] = torch.cat([down for down, _ in pairs]).contiguous()
        tensors[PREFIX + module + UP] = torch.cat([up.float() for _, up in pairs], 1).contiguous()
    first = parts[0].adapter
    targets = first.config["target_modules"]
    if any(part.adapter.config["target_modules"] != targets for part in parts):
        targets = sorted(shapes)
    rank = sum(ranks)
    config = first.config | {"r": rank, "lora_alpha": float(rank), "use_rslora": False}
    config |= {"target_modules": targets, "lora_dropout": 0.0}
    difference = _largest_difference(tensors, 1.0, updates)
    _save(first, out, tensors, config, _provenance(parts))
    return NewAdapter(str(out), rank, float(rank), len(shapes), difference, other_prompts(parts))


def rescale_adapter(
    saved: SavedAdapter, out: Path, *, alpha: float | None = None, rank_stabilized: bool = False
) -> NewAdapter:
    """Write the same adapter with another alpha: B is divided by as much as the scaling grows.

    Args:
        saved: The adapter.
        out: Folder to create.
        alpha: The new alpha; the one that makes the scaling 1, if None.
        rank_stabilized: Whether the scaling shall be alpha / sqrt(rank).

    Raises:
        ModelError: An alpha that is not positive, or ``out`` is there already.
        MachineError: The folder can't be written.
    """
    refuse_folder(out)
    spec = spec_of(saved.config)
    chosen = 1 / scaling(spec.rank, 1.0, rank_stabilized=rank_stabilized) if alpha is None else alpha
    if not (math.isfinite(chosen) and chosen > 0):
        raise ModelError(f"{chosen} is not positive", key="--alpha", cure="take a number such as the rank")
    old = scaling(spec.rank, spec.alpha, rank_stabilized=spec.rank_stabilized)
    new = scaling(spec.rank, chosen, rank_stabilized=rank_stabilized)
    update = _update(saved, 1.0)
    tensors = {
        name: (tensor.double() * (old / new)).to(promote_types(tensor.dtype, torch.float32))
        if name.endswith(UP)
        else tensor
        for name, tensor in saved.tensors().items()
    }
    difference = _largest_difference(tensors, new, [update])
    config = saved.config | {"lora_alpha": chosen, "use_rslora": rank_stabilized}
    provenance = {key: value for key, value in saved.provenance.items() if key not in ("files", "sha256")}
    _save(saved, out, tensors, config, provenance)
    return NewAdapter(str(out), spec.rank, chosen, len(update), difference)


def _update(saved: SavedAdapter, weight: float) -> Update:
    spec, tensors = spec_of(saved.config), saved.tensors()
    check_matrices(saved.config, {name: tensor.shape for name, tensor in tensors.items()})
    factor = weight * scaling(spec.rank, spec.alpha, rank_stabilized=spec.rank_stabilized)
    return _pairs(tensors, factor)


def _pairs(tensors: Mapping[str, Tensor], factor: float) -> Update:
    names = [name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
    return {
        name.removeprefix(PREFIX): (tensors[name + DOWN].float(), tensors[name + UP].double() * factor)
        for name in names
    }


def _largest_difference(tensors: Mapping[str, Tensor], factor: float, parts: Sequence[Update]) -> float:
    """How far new matrices are from the parts, for a random input of each layer."""
    random, worst = torch.Generator().manual_seed(0), 0.0
    for module, (down, up) in _pairs(tensors, factor).items():
        x = torch.randn(down.shape[1], dtype=torch.float64, generator=random)
        pieces = [b @ (a.double() @ x) for part in parts if module in part for a, b in (part[module],)]
        length = sum(float(piece.norm()) for piece in pieces)
        apart = float((up @ (down.double() @ x) - torch.stack(pieces).sum(0)).norm())
        worst = max(worst, apart / length if length else apart)
    if not worst <= ROUNDING:
        raise ModelError(
            f"the new adapter differs by {worst:.2g} of what its parts add, allowed {ROUNDING:.0e}",
            cure="nothing was written; are its numbers near the end of float32?",
        )
    return worst


def _provenance(parts: Sequence[Part]) -> dict[str, Any]:
    """Where a sum comes from; what it was made of identifies it, as a training does an adapter."""
    first = parts[0].adapter.provenance
    made_of = [
        {
            "name": part.name,
            "weight": part.weight,
            "training_fingerprint": part.adapter.provenance.get("training_fingerprint"),
        }
        for part in parts
    ]
    marks = [mark for part in parts for mark in part.adapter.provenance.get("inexact", [])]
    return {
        **{key: first[key] for key in KEPT if key in first},
        "made_of": made_of,
        "training_fingerprint": seal({"made_of": made_of})["sha256"],
        "inexact": marks,
    }


def _save(
    like: SavedAdapter,
    out: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Commit an adapter with the tokenizer files of another."""
    files: dict[str, bytes | Path] = {
        path.name: path for path in like.folder.iterdir() if path.is_file() and path.name not in WRITTEN_ANEW
    }
    facts = {key: value for key, value in provenance.items() if key != "format_version"}
    card = model_card(facts).encode()
    save_adapter(out, tensors=tensors, config=config, provenance=facts, files=files | {CARD: card})
