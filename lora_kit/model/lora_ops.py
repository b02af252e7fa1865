"""LoRA without extra passes over the output: linear layers that read the same input are one matrix product.

peft computes ``W x + scaling B (A dropout(x))`` with a tensor for each term, and keeps every input once a
layer. Here the frozen W and the A of all layers that share an input (q, k, v; gate, up) lie in one matrix,
row under row, so that one product gives the outputs and the rank-R states, and its transpose gives the whole
gradient of the input; B then adds into the outputs in place. The modules stay peft's: their weights are views
of the matrix, so that saving, merging and switching the adapter off work as ever. Packed weights are unpacked
into such a matrix for each product, and again in the backward pass: nothing dense is kept. What isn't plain
LoRA in one number type is left to peft's own forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn

from lora_kit.model.product import product
from lora_kit.model.quantize import dense_weight, is_packed, number_type

ADAPTER = "default"  # peft's name for a model's only adapter
START = "lora_kit_start"  # attribute of a layer: the factors that PiSSA takes away from its weight
Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type


@dataclass(frozen=True, slots=True)
class Adapter:
    """Where one layer's adapter lies in its :class:`Projections`.

    Args:
        out: Columns of the layer's output.
        rank: Columns of its rank-R states.
        down: A, ``(R, in)``; without gradient for PiSSA's first factors, which are an adapter of their own.
        up: B, ``(out, R)``.
        scaling: Factor of B A.
        dropout: Probability, 0 outside of training.
    """

    out: slice
    rank: slice
    down: nn.Parameter
    up: nn.Parameter
    scaling: float
    dropout: float


class Projections:
    """Linear layers that read the same input, as one product.

    Args:
        layers: Linear layers, with or without peft's adapter, each of which :func:`is_plain`.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = tuple(layers)
        self.bases = [base_layer(layer) for layer in layers]
        self.out = sum(base.out_features for base in self.bases)
        self.matrix: Tensor | None = None

    def adapters(self) -> list[Adapter]:
        """The active adapters, in the order of the layers."""
        found, row, rank = [], 0, self.out
        for layer, base in zip(self.layers, self.bases, strict=True):
            columns = slice(row, row := row + base.out_features)
            if isinstance(layer, LoraLayer) and not layer.disable_adapters:
                down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
                place = slice(rank, rank := rank + len(down))
                chance = getattr(layer.lora_dropout[ADAPTER], "p", 0.0) if layer.training else 0.0
                found.append(Adapter(columns, place, down, up, layer.scaling[ADAPTER], chance))
                if start := vars(layer).get(START):
                    place = slice(rank, rank := rank + len(start.down))
                    factors = start.down, start.up
                    found.append(Adapter(columns, place, *factors, layer.scaling[ADAPTER], 0.0))
        return found

    def packed(self, adapters: Sequence[Adapter]) -> Tensor:
        """Return W and A as one matrix, ``(out + sum of R, in)``, made where they lie elsewhere."""
        if any(map(is_packed, self.bases)):
            return torch.cat(
                [*map(dense_weight, self.bases), *(adapter.down.detach() for adapter in adapters)]
            )
        parts = [base.weight for base in self.bases] + [adapter.down for adapter in adapters]
        if self.matrix is None or not _lie_in(self.matrix, parts):
            self.matrix = torch.cat([part.detach() for part in parts])
            for part, rows in zip(parts, self.matrix.split([len(part) for part in parts]), strict=True):
                part.data = rows
        return self.matrix

    def bias(self) -> Tensor | None:
        """All biases in a row, zeros where a layer has none; None if no layer has one."""
        if all(base.bias is None for base in self.bases):
            return None
        zeros = [base.weight.new_zeros(base.out_features, dtype=number_type(base)) for base in self.bases]
        return torch.cat(
            [z if base.bias is None else base.bias for z, base in zip(zeros, self.bases, strict=True)]
        )


Product: TypeAlias = tuple[Projections, Sequence[Adapter]]


def project(
    projections: Projections, adapters: Sequence[Adapter], x: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """Multiply with W and A, then add scaling B A x.

    Args:
        projections: The layers.
        adapters: Its active adapters.
        x: Float ``(T, in)``.

    Returns:
        ``(T, out + sum of R)``, outputs then rank-R states (scaling not in them), and the adapters' dropout
        masks, ``(T, in)`` booleans.
    """
    if not adapters:  # each by itself: the same bits as the base without any adapter
        pieces = [product(x, dense_weight(base), base.bias) for base in projections.bases]
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)), []
    matrix, bias = projections.packed(adapters), projections.bias()
    masks = [_mask(x, adapter.dropout) for adapter in adapters]
    if any(mask is not None for mask in masks):
        y = x.new_empty(len(x), len(matrix))
        y[:, : projections.out] = product(x, matrix[: projections.out])
        for adapter, mask in zip(adapters, masks, strict=True):
            torch.mm(_dropped(x, adapter, mask), adapter.down.t(), out=y[:, adapter.rank])
    else:
        y = product(x, matrix)
    if bias is not None:
        y[:, : projections.out] += bias
    for adapter in adapters:
        y[:, adapter.out].addmm_(y[:, adapter.rank], adapter.up.t(), alpha=adapter.scaling)
    return y, masks


def project_back(
    projections: Projections,
    adapters: Sequence[Adapter],
    states: Tensor,
    grad: Tensor,
) -> list[Tensor]:
    """Complete the gradient of a product with its rank-R columns; return the gradients of all B.

    Args:
        projections: The layers.
        adapters: As in :func:`project`.
        states: Float ``(T, sum of R)``, the rank-R states.
        grad: Float ``(T, out + sum of R)``; its first ``out`` columns are given, the others are written.
    """
    ups = []
    for adapter in adapters:
        outer, inner = grad[:, adapter.out], grad[:, adapter.rank]
        torch.addmm(inner, outer, adapter.up, beta=0, alpha=adapter.scaling, out=inner)
        own = states[:, adapter.rank.start - projections.out : adapter.rank.stop - projections.out]
        ups.append(torch.mm(outer.t(), own).mul_(adapter.scaling))
    return ups


def grad_of_down(
    projections: Projections,
    adapters: Sequence[Adapter],
    x: Tensor,
    masks: Sequence[Tensor | None],
    grad: Tensor,
) -> list[Tensor]:
    """Return the gradients of all A, from the completed gradient of the product."""
    if any(mask is not None for mask in masks):
        return [
            torch.mm(grad[:, adapter.rank].t(), _dropped(x, adapter, mask))
            for adapter, mask in zip(adapters, masks, strict=True)
        ]
    if not adapters:
        return []
    together = torch.mm(grad[:, projections.out :].t(), x)
    return list(together.split([len(adapter.down) for adapter in adapters]))


def grad_of_input(
    projections: Projections, adapters: Sequence[Adapter], masks: Sequence[Tensor | None], grad: Tensor
) -> Tensor:
    """Return the gradient of the input, ``(T, in)``, from the completed gradient of the product."""
    if not adapters:
        pieces = grad.split([base.out_features for base in projections.bases], 1)
        total = torch.mm(pieces[0], dense_weight(projections.bases[0]))
        for piece, base in zip(pieces[1:], projections.bases[1:], strict=True):
            total.addmm_(piece, dense_weight(base))
        return total
    matrix = projections.packed(adapters)
    if all(mask is None for mask in masks):
        return torch.mm(grad, matrix)
    total = torch.mm(grad[:, : projections.out], matrix[: projections.out])
    for adapter, mask in zip(adapters, masks, strict=True):
        total += _dropped(torch.mm(grad[:, adapter.rank], adapter.down), adapter, mask)
    return total


def product_back(
    product: Product,
    x: Tensor,
    states: Tensor,
    masks: Sequence[Tensor | None],
    grad_output: Tensor,
    *,
    needed: bool,
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of a product's input (None if it is not needed), and of all A, then all B.

    Args:
        product: The layers and their active adapters.
        x: Float ``(T, in)``, the input.
        states: ``(T, sum of R)``, the rank-R states.
        masks: The dropout masks.
        grad_output: ``(T, out)``.
        needed: Whether the input's gradient is wanted.
    """
    projections, adapters = product
    grad = _with_room(grad_output, states.shape[1])
    ups = project_back(projections, adapters, states, grad)
    downs = grad_of_down(projections, adapters, x, masks, grad)
    return grad_of_input(projections, adapters, masks, grad) if needed else None, [*downs, *ups]


def _with_room(grad: Tensor, columns: int) -> Tensor:
    """Copy into a wider tensor, whose last columns :func:`project_back` writes."""
    if not columns:
        return grad
    wide = grad.new_empty(len(grad), grad.shape[1] + columns)
    wide[:, : grad.shape[1]] = grad
    return wide


def base_layer(layer: nn.Module) -> nn.Linear:
    """Return the frozen layer under an adapter, or the layer itself."""
    found = layer.base_layer if isinstance(layer, LoraLayer) else layer
    assert isinstance(found, nn.Linear)
    return found


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is frozen, in one number type, with at most one unmerged vanilla adapter."""
    return _is_simple(layer) and not (
        isinstance(layer, LoraLayer) and layer.lora_variant and not layer.disable_adapters
    )


def has_magnitudes(layer: nn.Module) -> bool:
    """Whether a layer is plain but for DoRA's magnitudes, and draws no dropout now."""
    return (
        isinstance(layer, LoraLayer)
        and type(layer.lora_variant.get(ADAPTER)) is DoraLinearVariant
        and not layer.disable_adapters
        and _is_simple(layer)
        and not (layer.training and getattr(layer.lora_dropout[ADAPTER], "p", 0.0))
    )


def _is_simple(layer: nn.Module) -> bool:
    if type(layer) is nn.Linear or is_packed(layer):
        assert isinstance(layer, nn.Linear)
        return not layer.weight.requires_grad and number_type(layer) is not None
    if not isinstance(layer, LoraLayer) or not _is_simple(layer.base_layer):
        return False
    weight = layer.base_layer.weight
    if layer.merged or weight.requires_grad or autocasts(weight):
        return False
    if layer.disable_adapters:
        return True
    return _alone(layer) and layer.lora_A[ADAPTER].weight.dtype == number_type(base_layer(layer))


def autocasts(tensor: Tensor) -> bool:
    """Whether products are made in another number type than the operands' (then torch's own ops do it)."""
    return torch.is_autocast_enabled(tensor.device.type)


def _alone(layer: LoraLayer) -> bool:
    alone = list(layer.active_adapters) == [ADAPTER] and list(layer.lora_A) == [ADAPTER]
    return (
        alone
        and layer.lora_B[ADAPTER].bias is None
        and type(layer.lora_dropout[ADAPTER]) in (nn.Identity, nn.Dropout)
    )


def _lie_in(matrix: Tensor, parts: Sequence[Tensor]) -> bool:
    place = matrix.data_ptr()
    for part in parts:
        if part.data_ptr() != place:
            return False
        place += part.numel() * part.element_size()
    return place == matrix.data_ptr() + matrix.numel() * matrix.element_size()


def _mask(x: Tensor, chance: float) -> Tensor | None:
    if not chance:
        return None
    return torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(1 - chance)


def _dropped(x: Tensor, adapter: Adapter, mask: Tensor | None) -> Tensor:
    return x if mask is None else (x * mask).mul_(1 / (1 - adapter.dropout))


def parameters_of(adapters: Sequence[Adapter]) -> list[nn.Parameter]:
    """All A, then all B: what an autograd function has to be given, to give them gradients."""
    return [adapter.down for adapter in adapters] + [adapter.up for adapter in adapters]
