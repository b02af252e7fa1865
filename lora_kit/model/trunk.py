"""The frozen trunk: the layers below the first adapter, whose output for a row never changes.

A row is computed by itself, so that its states are a function of the row and not of the micro-batch that it
was met in: what was computed now and what was kept by an earlier epoch are the same bits. The decoder then
starts from the states. Works for every family, because nothing is copied from transformers' models: their
list of layers is exchanged while they run, for the trunk alone, or for a layer that hands out the states and
those above it. Positions and masks come from the model's own forward.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_kit.errors import ModelError
from lora_kit.model import fused_llama
from lora_kit.model.attention import segment_arguments
from lora_kit.model.bare import bare_model

KEY = "engine.trunk_cache"
# Of a base itself: transformers' names in the configs of all families.
DROPOUTS = (
    "attention_dropout", "attn_pdrop", "embd_pdrop", "embedding_dropout", "emb_pdrop", "hidden_dropout",
    "resid_pdrop", "residual_dropout",
)  # fmt: skip


class Entering(NamedTuple):
    """Where a decoder starts, and from what.

    Args:
        depth: Layers that are skipped.
        states: Float ``(B, T, H)``, what enters the first layer that is not.
        pairs: Whether the family's layers return (states, attention weights) rather than states.
    """

    depth: int
    states: Tensor
    pairs: bool


@dataclass(frozen=True, slots=True)
class Trunk:
    """The layers below the first adapter.

    Args:
        base: The model, without peft's wrapper.
        depth: Layers of the trunk, at least one.
        flattened: Whether the family's rows are laid end to end.
        width: H of the states.
        dtype: Their number type.
        pairs: As in :class:`Entering`.
    """

    base: PreTrainedModel
    depth: int
    flattened: bool
    width: int
    dtype: torch.dtype
    pairs: bool

    def row_states(self, ids: Tensor) -> Tensor:
        """Compute one row by itself.

        Args:
            ids: Int64 ``(L,)``, L at least one.

        Returns:
            Float ``(L, H)``, without gradient; no random number was drawn.
        """
        states: Tensor = _trunk_output(self.base, self.depth, ids, flattened=self.flattened)[0]
        return states


def find_trunk(model: PreTrainedModel | PeftModel, *, flattened: bool) -> Trunk:
    """Find the trunk of a model with adapters, by running one token through it.

    Args:
        model: The model; what is trainable in it are the adapters.
        flattened: The family's flag.

    Raises:
        ModelError: The lowest layer has an adapter, or the base has dropout of its own.
    """
    base = bare_model(model)
    layers = layers_of(base)[1]
    trained = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    depth = trained.index(True) if True in trained else 0
    if not depth:
        raise ModelError(
            "there is no frozen trunk: the lowest layer has an adapter",
            key=KEY,
            cure=f"set lora.layers to less than last-{len(layers)}, or {KEY} to off",
        )
    random = [name for name in DROPOUTS if getattr(base.config, name, 0)]
    if random:
        raise ModelError(
            f"the base has {random[0]} {getattr(base.config, random[0])}, so its trunk is random",
            key=KEY,
            cure="set it to off",
        )
    token = torch.zeros(1, dtype=torch.int64, device=base.device)
    states, pairs = _trunk_output(base, depth, token, flattened=flattened)
    return Trunk(base, depth, flattened, states.shape[1], states.dtype, pairs)


@contextmanager
def started_at(base: PreTrainedModel, entering: Entering | None) -> Iterator[None]:
    """Let a model's own forward start from given states in the block, or as ever if there are none."""
    if entering is None:
        yield
        return
    layers = layers_of(base)[1]
    with _exchanged(base, [_Enter(entering), *layers[entering.depth :]]):
        yield


def layers_of(base: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return a decoder's list of layers, and its attribute's name."""
    lists = (
        (name, child) for name, child in base.base_model.named_children() if isinstance(child, nn.ModuleList)
    )
    return next(lists)


class _Enter(nn.Module):
    """In the place of the trunk: whatever comes, the states leave."""

    def __init__(self, entering: Entering) -> None:
        super().__init__()
        self.entering = entering

    def forward(self, *_: Any, **__: Any) -> Tensor | tuple[Tensor, None]:  # noqa: ANN401 - transformers'
        return (self.entering.states, None) if self.entering.pairs else self.entering.states


@contextmanager
def _exchanged(base: PreTrainedModel, layers: Sequence[nn.Module]) -> Iterator[None]:
    name, own = layers_of(base)
    setattr(base.base_model, name, nn.ModuleList(layers))
    try:
        yield
    finally:
        setattr(base.base_model, name, own)


@torch.no_grad()
def _trunk_output(base: PreTrainedModel, depth: int, ids: Tensor, *, flattened: bool) -> tuple[Tensor, bool]:
    """Return a row's states, (L, H), and whether the layers return pairs."""
    ids = ids[None]
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    if flattened:
        who_sees_whom: dict[str, Any] = segment_arguments((ids.shape[1],), ids.device)
    else:
        who_sees_whom = {"attention_mask": torch.ones_like(ids)}
    devices = [ids.device] if ids.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if flattened and fused_llama.fits(base):
            return fused_llama.trunk_states(base.model, ids, positions, who_sees_whom, depth), False
        trunk = layers_of(base)[1][:depth]
        found: list[Any] = []
        hook = trunk[-1].register_forward_hook(lambda _, __, output: found.append(output))
        try:
            with _exchanged(base, list(trunk)):
                base.base_model(input_ids=ids, position_ids=positions, use_cache=False, **who_sees_whom)
        finally:
            hook.remove()
    pairs = isinstance(found[0], tuple)
    return (found[0][0] if pairs else found[0])[0], pairs
