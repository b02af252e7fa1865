"""Trained rows of the embedding and the head, for a few tokens (peft's ``trainable_token_indices``).

The matrices stay frozen. Before the embedding reads ids, the rows' values are written into it (or the first
ones, while the adapter is off), so that whoever looks at a matrix, kernels and generation too, sees what is
trained. The gradient comes from what the embedding gave to these tokens, and from their part of the softmax,
which follows from each target's nats: no (N, V) logits, and no copy of a matrix. peft copies the whole matrix
for each forward pass; values and gradients are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeAlias

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from lora_kit.errors import ModelError, Problem
from lora_kit.model.bare import bare_model
from lora_kit.model.folder import listing
from lora_kit.model.lora_ops import ADAPTER
from lora_kit.model.stored_weights import Read

KEY = "lora.train_tokens"
SETTING = "trainable_token_indices"  # in adapter_config.json: module name -> ids
SAVED = ".token_adapter.trainable_tokens_delta"  # how the names of rows end in adapter_model.safetensors
OVERLAY, HEAD_ROWS = "lora_kit_overlay", "lora_kit_rows"  # attributes of the embedding, of the head
Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type
Matrix: TypeAlias = nn.Embedding | nn.Linear  # the embedding, or the head
Place: TypeAlias = tuple[Tensor, nn.Linear]  # ids, int64 (K,), and the head


class Rows(nn.Module):
    """Trained rows of one matrix.

    Args:
        matrix: ``(V, H)``, of the embedding or the head.
        ids: Int64 ``(K,)``, which rows.
    """

    def __init__(self, matrix: Tensor, ids: Tensor) -> None:
        super().__init__()
        self.ids, self.first = ids, matrix.detach()[ids].clone()
        self.weight = nn.Parameter(self.first.to(torch.promote_types(matrix.dtype, torch.float32)).clone())


@dataclass(frozen=True, slots=True)
class _Overlay:
    """What the embedding does before it reads.

    Args:
        pairs: Each module with rows of its own.
        place: Int64 ``(V,)``: which row a token has among the trained ones, -1 for none.
        probe: Any adapted layer, which knows whether the adapter is on.
    """

    pairs: tuple[tuple[Matrix, Rows], ...]
    place: Tensor
    probe: LoraLayer

    def write(self) -> bool:
        """Let the matrices hold what is valid now; return whether that is what is trained."""
        on = not self.probe.disable_adapters and list(self.probe.active_adapters) == [ADAPTER]
        for module, rows in self.pairs:
            wanted = (rows.weight.detach() if on else rows.first).to(module.weight.dtype)
            if not torch.equal(module.weight.detach()[rows.ids], wanted):
                with torch.no_grad():
                    module.weight.index_copy_(0, rows.ids, wanted)
        return on


def token_ids(wanted: Sequence[str | int], vocabulary: Mapping[str, int]) -> tuple[int, ...]:
    """Turn tokens, by their text in the vocabulary or by number, into ids.

    Raises:
        ModelError: A token that the tokenizer doesn't have, or one that is named twice.
    """
    known = set(vocabulary.values())
    found = [one if isinstance(one, int) else vocabulary.get(one, -1) for one in wanted]
    missing = [repr(one) for one, number in zip(wanted, found, strict=True) if number not in known]
    problems = []
    if missing:
        cure = "name tokens as they are in the tokenizer's vocabulary, or by number; new ones can't be added"
        problems.append(Problem(f"the tokenizer has no token {listing(missing)}", "", KEY, cure))
    elif len(set(found)) < len(found):
        problems.append(Problem("a token is named twice", "", KEY, "name each once"))
    if problems:
        raise ModelError.collect(problems)
    return tuple(found)


def train_rows(model: PeftModel, ids: Sequence[int]) -> None:
    """Train the rows of these tokens in the embedding, and in the head if it has a matrix of its own."""
    base = bare_model(model)
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    modules = [embedding] if is_tied(base) else [embedding, head]
    _overlay(model, modules, torch.tensor(list(ids), device=embedding.weight.device))
    model.peft_config[ADAPTER].trainable_token_indices = {_leaf(base, one): list(ids) for one in modules}


def attach_rows(model: PeftModel, setting: object) -> None:
    """Make room for saved rows.

    Args:
        model: With the adapter that they belong to.
        setting: ``trainable_token_indices`` of adapter_config.json: ids, or ids by the module's name.

    Raises:
        ModelError: Other modules than embedding and head, other ids in one than in the other, or no such ids.
    """
    base = bare_model(model)
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    by_name = setting if isinstance(setting, dict) else {_leaf(base, embedding): setting}
    known = {_leaf(base, one): one for one in (embedding, head)}
    given = list(by_name.values())
    ids = given[0] if given else None
    whole = (
        _leaf(base, embedding) in by_name
        and by_name.keys() <= known.keys()
        and isinstance(ids, list)
        and all(type(one) is int and 0 <= one < len(embedding.weight) for one in ids)
        and 0 < len(set(ids)) == len(ids)
        and all(other == ids for other in given)
    )
    if not whole:
        raise ModelError(
            "is not a list of the embedding's rows, the same ones for the head",
            where="adapter_config.json",
            key=SETTING,
            cure="merge it with the tool that made it, and use the merged model as the base",
        )
    modules = [embedding] if is_tied(base) else [known[name] for name in by_name]
    _overlay(model, modules, torch.tensor(ids, device=embedding.weight.device))
    model.peft_config[ADAPTER].trainable_token_indices = {_leaf(base, one): ids for one in modules}


def is_tied(base: PreTrainedModel) -> bool:
    """Whether the head is the embedding."""
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    return head.weight is embedding.weight or bool(base.config.tie_word_embeddings)


def detach_rows(base: PreTrainedModel) -> None:
    """Take the rows out of a model again, which then reads its matrices as they are."""
    for module in {base.get_input_embeddings(), base.get_output_embeddings()}:
        module.__dict__.pop("forward", None)
        if hasattr(module, "lora_rows"):
            del module.lora_rows


def saved_rows(
    base: PreTrainedModel,
    setting: Any,  # noqa: ANN401 - JSON
    tensors: Mapping[str, Tensor],
) -> dict[str, tuple[list[int], Tensor]]:
    """Return ids and rows of each matrix that a saved adapter changes, also a tied head's, by module name."""
    found: dict[str, tuple[list[int], Tensor]] = {}
    for name in (name for name in tensors if name.endswith(SAVED)):
        module = name.removesuffix(SAVED).removeprefix("base_model.model.")
        found[module] = (
            setting[module.rpartition(".")[2]] if isinstance(setting, dict) else setting,
            tensors[name],
        )
    if found and is_tied(base):
        head = base.get_output_embeddings()
        path = next(name for name, module in base.named_modules() if module is head)
        found[path] = next(iter(found.values()))
    return found


def reader_with_rows(read: Read, changed: Mapping[str, tuple[list[int], Tensor]]) -> Read:
    """Let a reader of weights give the trained rows of what :func:`saved_rows` (or a file) names."""

    def patched(name: str, rows: slice | Tensor | None = None) -> Tensor:
        part, found = read(name, rows), changed.get(name.removesuffix(".weight"))
        return part if found is None else put_rows(part, rows, *found)

    return patched


def put_rows(part: Tensor, numbers: slice | Tensor | None, ids: Sequence[int], rows: Tensor) -> Tensor:
    """Put trained rows into a matrix, or into some rows of it.

    Args:
        part: ``(N, H)``; it is changed.
        numbers: Which rows of the matrix these are: a slice, their numbers, or None for all.
        ids: Which rows are trained.
        rows: Their values, ``(K, H)``.
    """
    if not isinstance(numbers, Tensor):
        numbers = torch.arange(len(part)) + ((numbers.start or 0) if numbers is not None else 0)
    here, which = (numbers[:, None] == torch.tensor(list(ids))).nonzero(as_tuple=True)
    part[here] = rows[which].to(part.dtype)
    return part


def row_parameters(model: PeftModel) -> dict[str, nn.Parameter]:
    """Return the trained rows, ``(K, H)``, under the names that they have in adapter_model.safetensors."""
    mark = f".lora_rows.{ADAPTER}"
    return {
        f"{name.removesuffix(mark)}{SAVED}": module.weight
        for name, module in model.named_modules()
        if isinstance(module, Rows) and name.endswith(mark)
    }


def with_rows(nats: Tensor, each: Tensor, hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    """Make a loss differentiable in the head's trained rows too; its value stays.

    Args:
        nats: What ``loss.sum_of_nats`` gave.
        each: Of each target, float64 ``(N,)``, likewise.
        hidden: Float ``(N, H)``.
        head: The output layer.
        targets: Int64 ``(N,)``.
    """
    rows = vars(head).get(HEAD_ROWS)
    if rows is None or not hidden.requires_grad:  # off, or nobody asks
        return nats
    nothing: Tensor = _HeadRows.apply(rows.weight, (rows.ids, head), hidden.detach(), each, targets)
    return nats + nothing


def _overlay(model: PeftModel, modules: Sequence[Matrix], ids: Tensor) -> None:
    base = bare_model(model)
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    pairs = tuple((module, Rows(module.weight, ids)) for module in modules)
    for module, rows in pairs:
        module.lora_rows = nn.ModuleDict({ADAPTER: rows})
        if module is head or (module is embedding and is_tied(base)):
            vars(head)[HEAD_ROWS] = rows
    place = torch.full((len(embedding.weight),), -1, device=ids.device)
    place[ids] = torch.arange(len(ids), device=ids.device)
    probe = next(layer for layer in model.modules() if isinstance(layer, LoraLayer))
    vars(embedding)[OVERLAY] = _Overlay(pairs, place, probe)
    vars(embedding)["forward"] = MethodType(_embed, embedding)


def _embed(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    overlay: _Overlay = vars(embedding)[OVERLAY]
    on = overlay.write()
    x: Tensor = type(embedding).forward(embedding, ids)
    if not on or not torch.is_grad_enabled():
        return x
    place = overlay.place[ids]
    if embedding.padding_idx is not None:  # whose row torch gives no gradient
        place = place.masked_fill(ids == embedding.padding_idx, -1)
    rows, scale = overlay.pairs[0][1].weight, getattr(embedding, "embed_scale", None)
    through: Tensor = _Embedded.apply(rows, x, place, scale)
    return through


class _Embedded(torch.autograd.Function):
    """What the embedding gave, with a way back to the rows."""

    @staticmethod
    def forward(ctx: Context, rows: Tensor, x: Tensor, place: Tensor, scale: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, place)
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None, None]:
        rows, place = ctx.saved_tensors
        trained = place >= 0
        found = torch.zeros_like(rows).index_add_(0, place[trained], grad[trained].to(rows.dtype))
        return found if ctx.scale is None else found * ctx.scale, None, None, None


class _HeadRows(torch.autograd.Function):
    """Zero, with the gradient of a sum of nats in some rows of the head: softmax minus one-hot, times states.

    A token's probability is exp(logit - logsumexp), and the logsumexp is a target's nats plus its logit. In
    bfloat16 that logit is computed anew, so that its rounding, half a percent, is noise of the probabilities.
    """

    @staticmethod
    def forward(
        ctx: Context, weight: Tensor, where: Place, hidden: Tensor, each: Tensor, targets: Tensor
    ) -> Tensor:
        ids, head = where
        wide = hidden.to(weight.dtype)
        logits = wide @ weight.t()
        own = (wide * head.weight[targets].to(weight.dtype)).sum(1)
        if head.bias is not None:
            logits, own = logits + head.bias[ids], own + head.bias[targets]
        softmax = (logits.double() - (each + own.double())[:, None]).exp_()
        softmax -= (targets[:, None] == ids).double()
        ctx.save_for_backward(softmax.to(weight.dtype).t() @ wide)
        return each.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad.to(gradient.dtype), None, None, None, None


def _leaf(base: PreTrainedModel, wanted: nn.Module) -> str:
    """Return a module's own name, which is what peft calls it by."""
    return next(name.rpartition(".")[2] for name, module in base.named_modules() if module is wanted)
