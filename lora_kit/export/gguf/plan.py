"""Which tensors a GGUF file gets, of which number types, before a byte is written.

What is quantized is what llama.cpp multiplies with: matrices. Norms, biases and learned positions stay
float32. The output matrix (or the embedding that serves as one) gets 8 bits in files of 4 and 5 bits:
llama.cpp's own quantizer gives it 6, because it loses most there. A row that blocks of 32 don't divide
stays float16.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lora_kit.export.gguf.architecture import Architecture, Config, architecture_of, tensor_names
from lora_kit.export.gguf.quantize import NUMBER_TYPES, NumberType
from lora_kit.export.gguf.stored import StoredTensor
from lora_kit.model.folder import ModelFolder, check_folder

ROTARY_FACTORS = "rope_freqs.weight"
EMBEDDING, OUTPUT, _POSITIONS = "token_embd.weight", "output.weight", "position_embd.weight"
_SMALL = {"q4_0", "q4_1", "q5_0", "q5_1"}

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor of the file.

    Args:
        name: GGUF's name.
        kind: Its number type.
        shape: As transformers has it (GGUF writes the dimensions the other way round).
        stored: Where its numbers come from; None: ``values``.
        values: Numbers that are computed, float32.
    """

    name: str
    kind: NumberType
    shape: tuple[int, ...]
    stored: StoredTensor | None = None
    values: Array | None = None

    @property
    def size(self) -> int:
        """Bytes in the file, without padding."""
        return self.kind.size(self.shape)


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """Everything about a file that follows from the model folder.

    Args:
        architecture: How the architecture is written.
        config: config.json with all defaults filled in.
        tensors: In the file's order.
        quant: Name of the number type that most tensors have.
    """

    architecture: Architecture
    config: Config
    tensors: tuple[PlannedTensor, ...]
    quant: str

    @property
    def data_bytes(self) -> int:
        """Bytes of the tensors, with padding to 32."""
        return sum(-(-tensor.size // 32) * 32 for tensor in self.tensors)


def full_config(folder: Path) -> dict[str, Any]:
    """config.json with transformers' defaults filled in; older files leave out what was the only choice."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    filled: dict[str, Any] = config.to_dict()
    return filled


def plan_export(folder: Path, quant: str) -> ExportPlan:
    """Plan the file of a model folder.

    Raises:
        ModelError: The folder is not a safe and complete model, or can't become GGUF.
    """
    model = check_folder(folder)
    config = full_config(folder)
    architecture = architecture_of(config, where=str(folder))
    names = tensor_names(architecture, config, list(model.tensors), where=str(folder))
    stored = {gguf: _stored(model, architecture, config, name) for name, gguf in names.items()}
    if OUTPUT not in stored and architecture.needs_output:
        stored[OUTPUT] = stored[EMBEDDING]
    elif config.get("tie_word_embeddings") and not architecture.needs_output:
        stored.pop(OUTPUT, None)
    head = OUTPUT if OUTPUT in stored else EMBEDDING
    tensors = [
        PlannedTensor(name, number_type(name, tensor.shape, quant, head=name == head), tensor.shape, tensor)
        for name, tensor in stored.items()
    ]
    factors = architecture.rotary_factors(config)
    if factors is not None:
        tensors.append(PlannedTensor(ROTARY_FACTORS, NUMBER_TYPES["f32"], factors.shape, values=factors))
    return ExportPlan(architecture, config, tuple(sorted(tensors, key=lambda t: _place(t.name))), quant)


def number_type(name: str, shape: tuple[int, ...], quant: str, *, head: bool) -> NumberType:
    """The number type of one tensor in a file of type ``quant``; ``head`` marks the output matrix."""
    if len(shape) < 2 or name == _POSITIONS or "norm" in name or quant == "f32":
        return NUMBER_TYPES["f32"]
    chosen = NUMBER_TYPES["q8_0" if head and quant in _SMALL else quant]
    return NUMBER_TYPES["f16"] if shape[-1] % chosen.block else chosen


def _stored(
    model: ModelFolder, architecture: Architecture, config: Mapping[str, Any], name: str
) -> StoredTensor:
    shard, entry = model.tensors[name]
    return StoredTensor(name, model.folder / shard, entry, architecture.row_order(config, name))


def _place(name: str) -> tuple[int, int, str]:
    """Embedding, blocks in order, the rest: llama.cpp reads a file from its start to its end."""
    parts = name.split(".")
    if parts[0] == "blk":
        return (1, int(parts[1]), name)
    return (0 if name.startswith(("token_embd", "position_embd")) else 2, 0, name)
