"""Open a checked base: frozen, in evaluation mode, without a cache, with every number finite.

4-bit bases (QLoRA, arXiv 2305.14314) go through bitsandbytes, on the CPU as on a GPU.
"""

import os
from collections.abc import Iterable, Mapping
from textwrap import shorten
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from lora_kit.errors import MachineError, ModelError
from lora_kit.model.attention import register_segment_attention
from lora_kit.model.base import BaseFiles
from lora_kit.model.folder import check_folder, listing
from lora_kit.model.misfit import refuse_misfit
from lora_kit.model.quantize import multiply_unpacked
from lora_kit.model.quiet import quiet_libraries
from lora_kit.model.safetensors_file import read_header
from lora_kit.recipe.schema import QuantizationSpec

# Otherwise transformers asks the hub's bot, in a thread, to convert what has no safetensors.
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"


def pick_device(device: str) -> str:
    """Turn ``auto`` into ``cuda`` where there is a GPU, and ``cpu`` elsewhere.

    Raises:
        ModelError: ``cuda`` was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ModelError(
            "this machine has no GPU that torch can use", key="train.device", cure="set it to `cpu` or `auto`"
        )
    return ("cuda" if available else "cpu") if device == "auto" else device


def load_model(
    files: BaseFiles, *, dtype: str, quantization: QuantizationSpec, device: str
) -> PreTrainedModel:
    """Load a base model for training or evaluation.

    Args:
        files: The base, from :func:`lora_kit.model.base.find_base`.
        dtype: torch's name of the number type: ``float32``, ``bfloat16``, ``float16`` (``float64`` in tests).
        quantization: The recipe's ``quantization`` section.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        The model in evaluation mode; nothing in it is trainable.

    Raises:
        ModelError: The weights don't fit the architecture, are not finite, or the device is absent.
        MachineError: Not enough memory.
    """
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "device_map": {"": pick_device(device)}}
    if files.family.flattened:
        options["attn_implementation"] = register_segment_attention()
    if files.family.dropped or files.family.dropouts:
        kept = {key: value for key, value in files.config.items() if key not in files.family.dropped}
        silent = dict.fromkeys(files.family.dropouts, 0.0)
        options["config"] = CONFIG_MAPPING[files.config["model_type"]].from_dict(kept | silent)
    if quantization.method != "none":
        options["quantization_config"] = _packed(quantization)
        _refuse_non_finite(_tensors_on_disk(files), files)
    model = _open(files, options)
    _refuse_non_finite(_floating(model), files)
    model.requires_grad_(requires_grad=False)
    multiply_unpacked(model, options["dtype"])
    # True makes transformers build a cache in training, and with it another mask.
    model.config.use_cache = False
    return model.eval()


def check_vocabulary(files: BaseFiles, tokens: Mapping[str, int]) -> None:
    """Check that every token of a tokenizer has a row in the model's embedding.

    Args:
        files: The base.
        tokens: Token to id, added tokens included.

    Raises:
        ModelError: There are ids beyond the embedding.
    """
    beyond = [f"{token!r} ({number})" for token, number in tokens.items() if number >= files.vocab_size]
    if beyond:
        raise ModelError(
            f"{len(beyond)} tokens have no row in the embedding of {files.vocab_size}: {listing(beyond)}",
            where=str(files.folder),
            cure="use the tokenizer that belongs to the model",
        )


def _packed(spec: QuantizationSpec) -> BitsAndBytesConfig:
    if spec.method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.method,
        bnb_4bit_use_double_quant=spec.double_quant,
        bnb_4bit_compute_dtype=getattr(torch, spec.compute_dtype),
    )


def _open(files: BaseFiles, options: dict[str, Any]) -> PreTrainedModel:
    try:
        with quiet_libraries():
            model, report = AutoModelForCausalLM.from_pretrained(
                files.folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, by name
                **options,
            )
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise MachineError("not enough memory to load the model", where=str(files.folder)) from error
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"can't be loaded: {shorten(str(error), 200)}", where=str(files.folder)) from error
    refuse_misfit(report, where=str(files.folder))
    loaded: PreTrainedModel = model
    return loaded


def _floating(model: PreTrainedModel) -> Iterable[tuple[str, Tensor]]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return ((name, tensor) for name, tensor in named if tensor.is_floating_point())


def _tensors_on_disk(files: BaseFiles) -> Iterable[tuple[str, Tensor]]:
    """What is quantized hides NaN, so such a base is checked as it is stored."""
    model = check_folder(files.folder)
    for shard in model.shards:
        with safe_open(shard, framework="pt") as stored:
            yield from ((name, stored.get_tensor(name)) for name in read_header(shard))


def _refuse_non_finite(tensors: Iterable[tuple[str, Tensor]], files: BaseFiles) -> None:
    bad = [name for name, tensor in tensors if tensor.numel() and not _finite(tensor)]
    if bad:
        raise ModelError(
            f"{len(bad)} tensors hold NaN or infinity: {listing(bad)}",
            where=str(files.folder),
            cure="fetch the model again, or hold it in a number type with a larger range (base.dtype)",
        )


def _finite(tensor: Tensor) -> bool:
    """Look at the extremes, which needs no second tensor; NaN is passed on by aminmax."""
    low, high = tensor.aminmax()
    return bool(low.isfinite() & high.isfinite())
