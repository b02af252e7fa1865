"""A model whose weights are read when a layer needs them and forgotten after it.

For a look at some logits of a model that need not fit into memory; training and generation load it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lora_kit.errors import ModelError
from lora_kit.model.adapter_inject import attach_adapter
from lora_kit.model.bare import bare_model
from lora_kit.model.base import BaseFiles
from lora_kit.model.folder import check_folder
from lora_kit.model.lora_ops import ADAPTER
from lora_kit.model.quantize import as_four_bits_hold
from lora_kit.model.quiet import quiet_libraries
from lora_kit.model.safetensors_file import read_header
from lora_kit.recipe.schema import QuantizationSpec

OLD_HEAD = "embed_out.weight"  # GPT-NeoX's files; transformers 5 renames it while it loads
Read = Callable[[str], Tensor]


def layered_model(
    files: BaseFiles,
    *,
    dtype: torch.dtype,
    quantization: QuantizationSpec | None = None,
    adapter: tuple[Mapping[str, Any], Mapping[str, Tensor]] | None = None,
) -> nn.Module:
    """Open a base, with an adapter maybe, on the CPU and in evaluation mode, without reading its weights.

    Args:
        files: The base.
        dtype: Number type of the base's weights.
        quantization: The recipe's section; 4-bit weights are rounded as bitsandbytes holds them.
        adapter: Content of adapter_config.json and adapter_model.safetensors.

    Raises:
        ModelError: The adapter doesn't fit; when the model runs, also a weight that no file holds.
    """
    bare = _empty(files, dtype)
    four_bit = _linear(bare) if quantization and quantization.method != "none" else frozenset()
    read = partial(_read, _shards_of(files), dtype)
    model = bare.requires_grad_(requires_grad=False)
    if adapter is not None:
        model = attach_adapter(bare, *adapter)
        for module in model.modules():  # lora_ops would pack weights into matrices that stay in memory
            vars(module).pop("forward", None)
    base = bare_model(model)
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
            _on_demand(module, sources)
    return model.eval()


def four_bit_names(files: BaseFiles) -> frozenset[str]:
    """Names of the layers that a 4-bit base holds in 4 bits: the linear ones, the head aside."""
    return _linear(_empty(files, torch.float32))


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
    return as_four_bits_hold(read(), quantization)


def _source(
    name: str, base: PreTrainedModel, read: Read, adapter: Mapping[str, Tensor]
) -> Callable[[], Tensor]:
    """Say where a parameter comes from; a tied head may have no tensor of its own."""
    mark = f".{ADAPTER}.weight"
    if name.endswith(mark):
        tensor = adapter[f"base_model.model.{name.removesuffix(mark)}.weight"]
        return lambda: tensor
    plain = name.replace(".base_layer.", ".")
    if base.get_submodule(name.rpartition(".")[0]) is not base.get_output_embeddings():
        return partial(read, plain)
    embedding = base.get_input_embeddings()
    shared = next(f"{path}.weight" for path, module in base.named_modules() if module is embedding)
    tied = (shared,) if base.config.tie_word_embeddings else ()
    return partial(_first_found, read, (plain, OLD_HEAD, *tied))


def _first_found(read: Read, names: tuple[str, ...]) -> Tensor:
    for name in names[:-1]:
        try:
            return read(name)
        except ModelError:
            continue
    return read(names[-1])


def _on_demand(module: nn.Module, sources: Mapping[str, Callable[[], Tensor]]) -> None:
    """Read a module's own parameters before it runs, and drop them after."""
    empty = dict(module._parameters)  # noqa: SLF001

    def before(*_: object) -> None:
        for name, source in sources.items():
            module._parameters[name] = nn.Parameter(source(), requires_grad=False)  # noqa: SLF001

    def after(*_: object) -> None:
        module._parameters.update(empty)  # noqa: SLF001

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after, always_call=True)


def _shards_of(files: BaseFiles) -> dict[str, Any]:
    folder = check_folder(files.folder)
    return {name: shard for shard in folder.shards for name in read_header(shard)}


def _read(shards: Mapping[str, Any], dtype: torch.dtype, name: str) -> Tensor:
    """Read a tensor into memory of its own, so that the file's pages can go; files may lack the prefix."""
    found = next((n for n in (name, name.partition(".")[2]) if n in shards), None)
    if found is None:
        raise ModelError(f"no file holds the weight {name}", cure="fetch or convert the model again")
    with safe_open(shards[found], framework="pt") as stored:
        tensor: Tensor = stored.get_tensor(found)
        return tensor.to(dtype, copy=True)
