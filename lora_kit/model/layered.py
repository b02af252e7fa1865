"""A model whose weights are read when a layer needs them and forgotten after it.

For a look at some logits of a model that need not fit into memory; training and generation load it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lora_kit.errors import ModelError
from lora_kit.model.adapter_inject import MAGNITUDE, attach_adapter
from lora_kit.model.bare import bare_model
from lora_kit.model.base import BaseFiles
from lora_kit.model.lora_ops import ADAPTER
from lora_kit.model.memory import map_large_blocks
from lora_kit.model.quantize import as_held
from lora_kit.model.quiet import quiet_libraries
from lora_kit.model.stored_weights import Read, reader_of
from lora_kit.model.token_rows import SETTING, detach_rows, reader_with_rows, saved_rows
from lora_kit.recipe.schema import QuantizationSpec

Source: TypeAlias = Callable[..., Tensor]  # takes ``rows`` if it reads a file
OLD_HEAD = "embed_out.weight"  # GPT-NeoX's files; transformers 5 renames it while it loads


def layered_model(
    files: BaseFiles,
    *,
    dtype: torch.dtype,
    quantization: QuantizationSpec | None = None,
    adapter: tuple[Mapping[str, Any], Mapping[str, Tensor]] | None = None,
    read: Read | None = None,
) -> nn.Module:
    """Open a base, with an adapter maybe, on the CPU and in evaluation mode, without reading its weights.

    Args:
        files: The base.
        dtype: Number type of the base's weights.
        quantization: The recipe's section; 4-bit weights are rounded as bitsandbytes holds them.
        adapter: Content of adapter_config.json and adapter_model.safetensors.
        read: Where weights come from; None: the base's own files.

    Raises:
        ModelError: The adapter doesn't fit; when the model runs, also a weight that no file holds.
    """
    map_large_blocks()
    bare = _empty(files, dtype)
    four_bit = _linear(bare) if quantization and quantization.method != "none" else frozenset()
    read = read or reader_of(files, dtype)
    model = bare.requires_grad_(requires_grad=False)
    if adapter is not None:
        model = attach_adapter(bare, *adapter)
        for module in model.modules():  # lora_ops would pack weights into matrices that stay in memory
            vars(module).pop("forward", None)
    base = bare_model(model)
    if adapter is not None:
        read = reader_with_rows(read, _changed(base, *adapter))
        detach_rows(base)
    for path, module in base.named_modules():
        if any(p is not None and p.is_meta for p in module._parameters.values()):  # noqa: SLF001 - own ones only
            sources = {
                name: _source(f"{path}.{name}", base, read, adapter[1] if adapter else {})
                for name, parameter in module._parameters.items()  # noqa: SLF001
                if parameter is not None
            }
            if path.removesuffix(".base_layer") in four_bit:
                assert quantization is not None
                sources["weight"] = partial(_rounded, sources["weight"], quantization)
            user = _user(base, path)
            if isinstance(module, nn.Embedding) and user is module:
                _rows_on_demand(module, sources["weight"])
            else:
                _on_demand(module, sources, user)
    return model.eval()


def head_source(model: PreTrainedModel, read: Read) -> Source:
    """Return a function ``rows -> weight`` of a model's output matrix, which may be its embedding.

    So that logits can be made a piece of the vocabulary at a time: it is the largest matrix of most models.
    """
    head = model.get_output_embeddings()
    assert head.bias is None, "no family has one"
    path = next(path for path, module in model.named_modules() if module is head)
    return _source(f"{path}.weight", model, read, {})


def four_bit_names(files: BaseFiles) -> frozenset[str]:
    """Names of the layers that a 4-bit base holds in 4 bits: the linear ones, the head aside."""
    return _linear(_empty(files, torch.float32))


def changed_rows(
    files: BaseFiles, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, tuple[list[int], Tensor]]:
    """Return ids and rows that an adapter puts into embedding and head, by the names that files have.

    Args:
        files: The base.
        config: Content of adapter_config.json.
        tensors: Content of adapter_model.safetensors.
    """
    return _changed(_empty(files, torch.float32), config, tensors)


def _changed(
    base: PreTrainedModel, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, tuple[list[int], Tensor]]:
    rows = saved_rows(base, config.get(SETTING), tensors)
    old = OLD_HEAD.removesuffix(".weight")
    return rows | ({old: rows["lm_head"]} if "lm_head" in rows else {})


def _empty(files: BaseFiles, dtype: torch.dtype) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
    with quiet_libraries(), init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model


def _linear(model: PreTrainedModel) -> frozenset[str]:
    head = model.get_output_embeddings()
    layers = model.named_modules()
    return frozenset(path for path, layer in layers if isinstance(layer, nn.Linear) and layer is not head)


def _rounded(read: Callable[[], Tensor], quantization: QuantizationSpec) -> Tensor:
    return as_held(read(), quantization)


def _source(name: str, base: PreTrainedModel, read: Read, adapter: Mapping[str, Tensor]) -> Source:
    """Say where a parameter comes from; a tied head may have no tensor of its own."""
    mark = f".{ADAPTER}.weight"
    if name.endswith(mark):
        saved = f"base_model.model.{name.removesuffix(mark)}"
        tensor = adapter[saved if saved.endswith(MAGNITUDE) else f"{saved}.weight"]
        return lambda: tensor
    plain = name.replace(".base_layer.", ".")
    if base.get_submodule(name.rpartition(".")[0]) is not base.get_output_embeddings():
        return partial(read, plain)
    embedding = base.get_input_embeddings()
    shared = next(f"{path}.weight" for path, module in base.named_modules() if module is embedding)
    tied = (shared,) if base.config.tie_word_embeddings else ()
    return partial(_first_found, read, (plain, OLD_HEAD, *tied))


def _first_found(read: Read, names: tuple[str, ...], rows: slice | Tensor | None = None) -> Tensor:
    for name in names[:-1]:
        try:
            return read(name, rows)
        except ModelError:
            continue
    return read(names[-1], rows)


def _user(base: PreTrainedModel, path: str) -> nn.Module:
    """Return who looks at a module's parameters: the module, or DoRA's layer around it."""
    for part in (path.removesuffix(".base_layer"), path.removesuffix(f".{ADAPTER}").rpartition(".")[0]):
        if getattr(around := base.get_submodule(part), "lora_variant", None):
            return around
    return base.get_submodule(path)


def _on_demand(module: nn.Module, sources: Mapping[str, Source], user: nn.Module) -> None:
    """Read a module's own parameters before its user runs, and drop them after."""
    empty = dict(module._parameters)  # noqa: SLF001

    def before(*_: object) -> None:
        for name, source in sources.items():
            module._parameters[name] = nn.Parameter(source(), requires_grad=False)  # noqa: SLF001

    def after(*_: object) -> None:
        module._parameters.update(empty)  # noqa: SLF001

    user.register_forward_pre_hook(before)
    user.register_forward_hook(after, always_call=True)


def _rows_on_demand(embedding: nn.Embedding, source: Source) -> None:
    """Read the rows of the ids that occur, and give the embedding their places among these."""
    empty = embedding._parameters["weight"]  # noqa: SLF001
    embedding.padding_idx = None  # matters to gradients only, and may lie beyond the rows that are read

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ids, places = inputs[0].unique(return_inverse=True)
        embedding._parameters["weight"] = nn.Parameter(source(rows=ids), requires_grad=False)  # noqa: SLF001
        return (places, *inputs[1:])

    def after(*_: object) -> None:
        embedding._parameters["weight"] = empty  # noqa: SLF001

    embedding.register_forward_pre_hook(before)
    embedding.register_forward_hook(after, always_call=True)
