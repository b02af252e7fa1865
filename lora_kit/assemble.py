"""Puts base, tokenizer, template and adapter together, for whoever needs a model that speaks.

Training, evaluation, merging and chat open models here and nowhere else, so that
each of them meets the same checks: the adapter's base by fingerprint, the
tokenizer and template by theirs, and one encoder for all.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lora_kit.artifacts.adapter import SavedAdapter, read_adapter
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.data.encode import Encoder
from lora_kit.data.open_encoder import open_encoder
from lora_kit.errors import ModelError
from lora_kit.model.adapter_inject import attach_adapter
from lora_kit.model.base import GIVEN_NAME, BaseFiles, find_base
from lora_kit.model.hub import TOKENIZER_FILES
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, QuantizationSpec

MERGED_FILE = "lora_kit_merge.json"


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that is ready to answer.

    Args:
        name: What to call it in a table.
        model: The model; a PeftModel if ``adapter`` is set.
        encoder: Text to ids, as in training.
        files: Where the base came from.
        adapter: The adapter on it, if any.
    """

    name: str
    model: PreTrainedModel
    encoder: Encoder
    files: BaseFiles
    adapter: SavedAdapter | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParts:
    """A model on disk, checked, whose weights nobody has read yet.

    Args:
        name: What to call it in a table.
        encoder: Text to ids, as in training.
        files: Where the base is.
        quantization: How the base is held, in training too.
        dtype: In which number type.
    """

    name: str
    encoder: Encoder
    files: BaseFiles
    quantization: QuantizationSpec
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterParts(ModelParts):
    """An adapter, checked against its base.

    Args:
        adapter: The adapter.
    """

    adapter: SavedAdapter


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """The files of a folder that make up its tokenizer and chat template."""
    return {name: folder / name for name in TOKENIZER_FILES if (folder / name).is_file()}


def open_target(target: str, *, device: str = "auto", base: str | None = None) -> Opened:
    """Open a run, an adapter folder or a base model.

    Args:
        target: A run directory, a folder with ``adapter_config.json``, or what ``base.model`` accepts.
        device: ``auto``, ``cpu`` or ``cuda``.
        base: Where the adapter's base is now, if it has moved.

    Raises:
        ModelError: There is no such model, or the adapter belongs to another base.
    """
    return open_parts(find_target(target, base=base), device=device)


def find_target(target: str, *, base: str | None = None) -> ModelParts:
    """Find what a name stands for; an :class:`AdapterParts` for a run or an adapter folder.

    Args:
        target: As for :func:`open_target`.
        base: Where the adapter's base is now, if it has moved.

    Raises:
        ModelError: There is no such model, or the adapter belongs to another base.
    """
    path = Path(target)
    if (path / "run.json").is_file():
        return find_adapter(finished_adapter(path), name=path.resolve().name, base=base)
    if (path / "adapter_config.json").is_file() or (path / "adapter_model.bin").is_file():
        return find_adapter(path, name=path.resolve().name, base=base)
    return find_model(target)


def finished_adapter(run: Path) -> Path:
    """The adapter folder of a run.

    Raises:
        ModelError: The run has none yet.
    """
    folder = RunDir(run).adapter
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(
            "the run has no adapter yet", where=str(run), cure=f"finish it: lora-kit train {run}"
        )
    return folder


def saved_adapter(target: Path) -> SavedAdapter:
    """Open the adapter of a run, or an adapter folder; nobody looks for its base.

    Raises:
        ModelError: There is none, or it was changed.
    """
    return read_adapter(finished_adapter(target) if (target / "run.json").is_file() else target)


def open_parts(parts: ModelParts, *, device: str = "auto") -> Opened:
    """Load a model, and put its adapter on it if it has one."""
    model = load_model(parts.files, dtype=parts.dtype, quantization=parts.quantization, device=device)
    if not isinstance(parts, AdapterParts):
        return Opened(parts.name, model, parts.encoder, parts.files, None)
    attached = attach_adapter(model, parts.adapter.config, parts.adapter.tensors())
    attached.eval()
    return Opened(parts.name, attached, parts.encoder, parts.files, parts.adapter)


def find_model(model: str) -> ModelParts:
    """Find a base or merged model as it is; a merged one keeps the template that it was trained with."""
    files = find_base(BaseSpec(model=model), key=GIVEN_NAME)
    provenance = merged_provenance(files.folder)
    return ModelParts(
        name=Path(model).name,
        encoder=open_encoder(files.folder, provenance.get("template", "model"), provenance.get("system")),
        files=files,
        quantization=QuantizationSpec(),
        dtype=provenance.get("dtype") or "float32",
    )


def find_adapter(folder: Path, *, name: str, base: str | None = None) -> AdapterParts:
    """Find a saved adapter's base, tokenizer and template, and compare fingerprints.

    Raises:
        ModelError: The base, tokenizer or template is not the one that the adapter was trained with.
    """
    saved = read_adapter(folder)
    files = find_adapter_base(saved, base)
    return AdapterParts(
        name=name,
        encoder=adapter_encoder(saved),
        files=files,
        adapter=saved,
        quantization=quantization_of(saved),
        dtype=base_facts(saved).get("dtype", "float32"),
    )


def quantization_of(saved: SavedAdapter) -> QuantizationSpec:
    """How the base was held when the adapter was trained."""
    return QuantizationSpec.model_validate(saved.provenance.get("quantization", {}))


def base_facts(saved: SavedAdapter) -> dict[str, Any]:
    """What the adapter knows of its base; empty for an adapter that lora_kit did not train."""
    facts: dict[str, Any] = saved.provenance.get("base", {})
    return facts


def find_adapter_base(saved: SavedAdapter, base: str | None) -> BaseFiles:
    """Find the adapter's base and compare fingerprints; peft takes any base of the same shape, silently."""
    facts = base_facts(saved)
    source = base or facts.get("source") or saved.config.get("base_model_name_or_path")
    if not source:
        raise ModelError(
            "the adapter does not say which base it belongs to", where=str(saved.folder), cure="pass --base"
        )
    revision = None if base else facts.get("revision")
    files = find_base(BaseSpec(model=source, revision=revision), key="--base")
    wanted = facts.get("fingerprint")
    if wanted is not None and wanted != files.fingerprint:
        raise ModelError(
            f"the adapter was trained on base {wanted[:12]}, but {source} is {files.fingerprint[:12]}",
            where=str(saved.folder),
            key="base",
            cure="use the base that it was trained on (--base), or train a new adapter",
        )
    return files


def adapter_encoder(saved: SavedAdapter) -> Encoder:
    """The encoder that the adapter was trained with, from the tokenizer stored beside it."""
    template = saved.provenance.get("template", {}).get("name", "model")
    encoder = open_encoder(saved.folder, template, saved.provenance.get("system"))
    wanted = saved.provenance.get("encoder_fingerprint")
    if wanted is not None and wanted != encoder.fingerprint:
        raise ModelError(
            "the tokenizer or template differs from the one that the adapter was trained with",
            where=str(saved.folder),
            cure="restore the adapter folder; answers would be worse without a word",
        )
    return encoder


def merged_provenance(folder: Path) -> dict[str, Any]:
    """What ``lora-kit merge`` wrote about a merged model; empty for any other folder."""
    path = folder / MERGED_FILE
    if not path.is_file():
        return {}
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts
