"""An adapter as a GGUF LoRA file, which llama.cpp puts on a base's GGUF (``--lora``).

B has a row for each row of the weight, so it follows the weight's order of rows; A is as it is. llama.cpp
multiplies by alpha / rank, so a rank-stabilized adapter is given another alpha. Facts:
``convert_lora_to_gguf.py`` and ``src/llama-adapter.cpp`` of github.com/ggml-org/llama.cpp.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lora_kit import __version__
from lora_kit.artifacts.adapter import SavedAdapter
from lora_kit.errors import ModelError
from lora_kit.export.deltas import refuse_original
from lora_kit.export.gguf.architecture import Architecture, Config, architecture_of, tensor_names
from lora_kit.export.gguf.check import check_file, compare_weights
from lora_kit.export.gguf.plan import PlannedTensor, full_config
from lora_kit.export.gguf.quantize import NUMBER_TYPES
from lora_kit.export.gguf.write import Value, write_gguf
from lora_kit.model.adapter_inject import scaling
from lora_kit.model.base import BaseFiles

ADAPTER_QUANTS = ("f32", "f16", "bf16")
_PREFIX = "base_model.model."
Array = np.ndarray[Any, np.dtype[Any]]


def make_adapter_gguf(saved: SavedAdapter, files: BaseFiles, path: Path, quant: str) -> dict[str, Any]:
    """Write an adapter file and check it.

    Args:
        saved: The adapter.
        files: Its base.
        path: The file to create.
        quant: One of ``ADAPTER_QUANTS``.

    Returns:
        The certificate's part about it.

    Raises:
        ModelError: The base can't become GGUF, the adapter is more than A and B matrices, or it is LoftQ's,
            which belongs to 4-bit weights.
    """
    refuse_original(saved)
    config = full_config(files.folder)
    architecture = architecture_of(config, where=str(files.folder))
    tensors = adapter_tensors(saved, architecture, config, quant)
    metadata = adapter_metadata(saved, files)
    write_gguf(path, architecture.name, metadata, tensors)
    header = check_file(path, metadata, tensors)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "architecture": architecture.name,
        "quant": quant,
        "modules": len(tensors) // 2,
        "weights": compare_weights(path, header, tensors).to_json(),
    }


def adapter_metadata(saved: SavedAdapter, files: BaseFiles) -> dict[str, Value]:
    """Every key of the file besides ``general.architecture``."""
    config = saved.config
    rank = config["r"]
    factor = scaling(rank, config["lora_alpha"], rank_stabilized=config.get("use_rslora", False))
    training = saved.provenance.get("training_fingerprint")
    return {
        "general.type": "adapter",
        "general.name": saved.folder.resolve().parent.name or "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": float(factor * rank),
        "lora_kit.version": __version__,
        "lora_kit.base_fingerprint": files.fingerprint,
        **({"lora_kit.training_fingerprint": training} if training else {}),
    }


def adapter_tensors(
    saved: SavedAdapter, architecture: Architecture, config: Config, quant: str
) -> tuple[PlannedTensor, ...]:
    """The A and B matrices under GGUF's names.

    Raises:
        ModelError: There are other tensors, such as DoRA's magnitudes.
    """
    stored = {name: tensor.float().numpy() for name, tensor in saved.tensors().items()}
    weights = _weights(stored, where=str(saved.folder))
    names = tensor_names(architecture, config, list(weights), where=str(saved.folder))
    kind = NUMBER_TYPES[quant]
    planned = []
    for weight, name in sorted(names.items(), key=lambda pair: pair[1]):
        a, b = weights[weight]
        order = architecture.row_order(config, weight)
        b = b if order is None else b[order]
        planned.append(PlannedTensor(f"{name}.lora_a", kind, a.shape, values=a))
        planned.append(PlannedTensor(f"{name}.lora_b", kind, b.shape, values=b))
    return tuple(planned)


def _weights(stored: Mapping[str, Array], *, where: str) -> dict[str, tuple[Array, Array]]:
    """The weight's name to its (A, B)."""
    pairs = {}
    left = set(stored)
    for name in stored:
        module = name.removesuffix(".lora_A.weight")
        other = f"{module}.lora_B.weight"
        if module != name and other in stored:
            pairs[f"{module.removeprefix(_PREFIX)}.weight"] = (stored[name], stored[other])
            left -= {name, other}
    if left:
        raise ModelError(
            f"GGUF has no place for the adapter's '{min(left)}'",
            where=where,
            cure="merge it and export the merged model",
        )
    return pairs
