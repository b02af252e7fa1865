"""A model folder that transformers and others open: shards with an index, tokenizer, chat template, card."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lora_kit.artifacts.commit import write_file, write_json
from lora_kit.artifacts.stream_tensors import DTYPE_NAMES, TensorPlan, stream_tensors
from lora_kit.assemble import MERGED_FILE, tokenizer_files
from lora_kit.data.tokenizer import load_tokenizer
from lora_kit.data.types import Message
from lora_kit.export.card import exported_card
from lora_kit.export.exporter import Exporter, ExportOptions, ExportSource
from lora_kit.export.gguf.make import own_chat_template
from lora_kit.export.same_tokens import Door, compare_doors, with_system
from lora_kit.export.turns import trims
from lora_kit.model.folder import INDEX, SINGLE, check_folder
from lora_kit.model.quiet import quiet_libraries

SHARD_BYTES = 2_000_000_000
_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_BY_NAME = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def size(source: ExportSource, options: ExportOptions) -> int:
    """Bytes of the tensors."""
    return sum(plan.size for plan in _plans(source.folder, options.quant).values())


def write(source: ExportSource, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Write the model; ``quant`` f32, f16 or bf16 changes its number type.

    Raises:
        ModelError: The folder is not a complete model, or its chat template gives other tokens.
    """
    plans = _plans(source.folder, options.quant)
    shards = shards_of(plans)
    _write_shards(folder, plans, shards)
    _write_companions(source, folder, options.quant)
    report: dict[str, Any] = {"shards": len(shards), "tensors": len(plans), "quant": options.quant}
    if source.encoder is None:
        return report
    write_file(folder / "chat_template.jinja", own_chat_template(source.encoder).encode())
    doors = {"transformers' apply_chat_template": transformers_door(source, folder)}
    same = compare_doors(source.encoder, doors, trims=trims(source.encoder.template))
    return {**report, "same_tokens": same.to_json()}


def shards_of(plans: Mapping[str, TensorPlan], most_bytes: int = SHARD_BYTES) -> list[list[str]]:
    """Cut the tensors into files of at most ``most_bytes``, or one tensor."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, plan in plans.items():
        if shards[-1] and filled + plan.size > most_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += plan.size
    return shards


def transformers_door(source: ExportSource, folder: Path) -> Door:
    """What a program on transformers does: load the folder's tokenizer, apply its chat template."""
    hf = load_tokenizer(folder).hf
    encoder = source.encoder
    assert encoder is not None

    def door(messages: Sequence[Message]) -> list[int]:
        written = [{"role": m.role, "content": m.content} for m in with_system(encoder, messages)]
        text = hf.apply_chat_template(written, tokenize=False, add_generation_prompt=True)
        with quiet_libraries():  # it warns of texts beyond the context
            ids: list[int] = hf(text, add_special_tokens=False)["input_ids"]
        return ids

    return door


def _plans(folder: Path, quant: str | None) -> dict[str, TensorPlan]:
    model = check_folder(folder)

    def plan(name: str) -> TensorPlan:
        shard, entry = model.tensors[name]
        stored = _BY_NAME.get(entry.dtype, torch.float32)
        dtype = _DTYPES[quant] if quant and stored.is_floating_point else stored
        return TensorPlan(dtype, entry.shape, lambda: _read(folder / shard, name))

    return {name: plan(name) for name in sorted(model.tensors)}


def _read(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as tensors:
        tensor: Tensor = tensors.get_tensor(name)
    return tensor


def _write_shards(folder: Path, plans: Mapping[str, TensorPlan], shards: list[list[str]]) -> None:
    if len(shards) == 1:
        stream_tensors(folder / SINGLE, plans, {"format": "pt"})
        return
    places: dict[str, str] = {}
    for n, names in enumerate(shards, start=1):
        file = f"model-{n:05d}-of-{len(shards):05d}.safetensors"
        stream_tensors(folder / file, {name: plans[name] for name in names}, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    total = sum(plan.size for plan in plans.values())
    write_json(
        folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    )


def _write_companions(source: ExportSource, folder: Path, quant: str | None) -> None:
    config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    if quant:
        config.pop("torch_dtype", None)
        config["dtype"] = str(_DTYPES[quant]).removeprefix("torch.")
    write_json(folder / "config.json", config)
    others = [source.folder / name for name in ("generation_config.json", MERGED_FILE)]
    for path in (*tokenizer_files(source.folder).values(), *(path for path in others if path.is_file())):
        shutil.copyfile(path, folder / path.name)
    card = exported_card(source.name, source.provenance, source.fingerprint)
    write_file(folder / "README.md", card.encode())


EXPORTER = Exporter(
    name="safetensors",
    description="a model folder for transformers",
    default_quant=None,
    quants=tuple(_DTYPES),
    needs_template=False,
    size=size,
    write=write,
)
