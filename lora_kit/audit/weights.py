"""What an adapter adds to each layer, from its two small matrices: never from their product.

With QR decompositions B = P S and A^T = Q T, the singular values of scaling B A are those of scaling S T^T,
which is as small as the rank. The effective rank is the exponential of their entropy (Roy and Vetterli 2007).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lora_kit.artifacts.adapter import SavedAdapter
from lora_kit.audit.findings import Finding
from lora_kit.model.adapter_inject import first_value, scaling
from lora_kit.model.adapter_settings import DOWN, UP, check_matrices, spec_of
from lora_kit.model.folder import listing
from lora_kit.recipe.schema import Recipe

NAME = "differs from its base"
PREFIX = "base_model.model."
ROUNDING = 1e-9  # of float64, as a share of the lengths of A and B
PARALLEL = 1e-6  # share of A that is not its first value: weight decay alone gives none, one step gives more
CURE = "they got no gradient, so they learned nothing: leave out layers that the rows never pass through"


class LayerNorm(NamedTuple):
    """What is added to one layer.

    Args:
        module: Path of the layer.
        norm: Frobenius norm of scaling B A.
        largest: Its largest singular value: most that it stretches an input.
        effective_rank: How many of its directions count, from 1 to the rank; 0 if it is zero.
    """

    module: str
    norm: float
    largest: float
    effective_rank: float


def layer_norms(adapter: SavedAdapter) -> list[LayerNorm]:
    """Measure every layer of an adapter, in its order.

    Raises:
        ModelError: The weights are damaged or not finite, or the configuration is not known.
    """
    tensors, spec = adapter.tensors(), spec_of(adapter.config)
    check_matrices(adapter.config, {name: tensor.shape for name, tensor in tensors.items()})
    factor = scaling(spec.rank, spec.alpha, rank_stabilized=spec.rank_stabilized)
    downs = [name for name in tensors if name.endswith(DOWN)]
    return [_measured(name, factor, tensors[name], tensors[name.removesuffix(DOWN) + UP]) for name in downs]


def singular_values(down: Tensor, up: Tensor) -> Tensor:
    """Return the singular values of B A, float64 ``(min(R, out, in),)``, largest first.

    Args:
        down: A, ``(R, in)``.
        up: B, ``(out, R)``.
    """
    inner = torch.linalg.qr(up.double())[1] @ torch.linalg.qr(down.double().t())[1].t()
    return torch.linalg.svdvals(inner)


def _measured(name: str, factor: float, down: Tensor, up: Tensor) -> LayerNorm:
    module = name.removesuffix(DOWN).removeprefix(PREFIX)
    values = factor * singular_values(down, up)
    size = factor * float(down.double().norm() * up.double().norm())
    if float(values.norm()) <= ROUNDING * size:  # what PiSSA began with is taken away by as much
        return LayerNorm(module, 0.0, 0.0, 0.0)
    shares = values[values > 0] / values.sum()
    rank = float((-(shares * shares.log()).sum()).exp())
    return LayerNorm(module, float(values.norm()), float(values.max()), rank)


def check_difference(adapter: SavedAdapter, layers: list[LayerNorm], recipe: Recipe | None) -> Finding:
    """Look for layers that nothing is added to, and for A that never moved.

    Args:
        adapter: The adapter.
        layers: What :func:`layer_norms` measured.
        recipe: What it was trained with; None for an adapter of another tool.

    Raises:
        ModelError: The weights are damaged, or not finite.
    """
    zero = [layer.module for layer in layers if layer.norm == 0]
    if len(zero) == len(layers):
        found = "what it adds is zero in every layer (B = 0): it is its base"
        return Finding(NAME, found, "failed", cure="it was never trained, or got no gradient: train it again")
    if zero:
        found = f"what it adds is zero in {len(zero)} of {len(layers)} layers (B = 0): {listing(zero, 2)}"
        return Finding(NAME, found, "failed", "lora.targets", CURE)
    still = _unmoved(adapter.tensors(), recipe) if recipe and adapter.provenance.get("step", 0) > 1 else []
    if still:
        found = f"A is as it began in {len(still)} of {len(layers)} layers: {listing(still, 2)}"
        return Finding(NAME, found, "failed", "lora.targets", CURE)
    least, most = (choose(layers, key=lambda layer: layer.norm) for choose in (min, max))
    norms = f"{least.norm:.3g} ({least.module}) to {most.norm:.3g} ({most.module})"
    return Finding(NAME, f"norms of scaled BA from {norms}, in {len(layers)} layers")


def _unmoved(tensors: Mapping[str, Tensor], recipe: Recipe) -> list[str]:
    """Return the layers whose A never had a gradient: its first value is known, and decay only shrinks it."""
    still = []
    for name in [name for name in tensors if name.endswith(DOWN)]:
        now, first = _now_and_first(name, tensors[name], recipe)
        decayed = recipe.train.weight_decay > 0 and _beside(now.double(), first.double()) < PARALLEL
        if torch.equal(now, first) or decayed:
            still.append(name.removesuffix(DOWN).removeprefix(PREFIX))
    return still


def _now_and_first(name: str, down: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return what was trained of a saved A, and what it began with, if that is known (else zeros)."""
    if recipe.lora.init == "default":
        return down, first_value(name, down, recipe.train.seed).to(down.dtype)
    if recipe.lora.init == "pissa":
        now, first = down.tensor_split(2)  # its beginning is kept below it
        return now, first
    return down, torch.zeros_like(down)


def _beside(tensor: Tensor, first: Tensor) -> float:
    """Return the share of a tensor that is not a multiple of another."""
    along = (tensor * first).sum() / first.square().sum().clamp_min(1e-300) * first
    return float((tensor - along).norm() / tensor.norm())


def layers_json(layers: list[LayerNorm]) -> list[dict[str, Any]]:
    """The layers as JSON values, four digits of each number."""
    return [
        {key: value if isinstance(value, str) else float(f"{value:.4g}") for key, value in row.items()}
        for row in (layer._asdict() for layer in layers)
    ]
