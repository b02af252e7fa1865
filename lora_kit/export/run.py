"""Export a plain model: one folder, committed whole with its certificate, or nothing."""

from pathlib import Path
from typing import Any

from lora_kit.artifacts.adapter import read_adapter
from lora_kit.artifacts.commit import committed_dir, write_json
from lora_kit.artifacts.disk import disk_errors
from lora_kit.assemble import find_adapter_base, merged_provenance, quantization_of
from lora_kit.catalogue import EXPORTERS
from lora_kit.data.encode import Encoder
from lora_kit.data.template import load_template
from lora_kit.data.tokenizer import Tokenizer, load_tokenizer
from lora_kit.errors import ModelError, RecipeError
from lora_kit.export.exporter import Exporter, ExportOptions, ExportRequest, ExportSource
from lora_kit.export.gguf.adapter_file import ADAPTER_QUANTS, make_adapter_gguf
from lora_kit.export.gguf.architecture import can_become_gguf
from lora_kit.export.gguf.k_quants import require_quantizer
from lora_kit.export.gguf.plan import full_config
from lora_kit.export.gguf.vocabulary import vocabulary_refusal
from lora_kit.model.base import BaseFiles

CERTIFICATE = "certificate.json"


def export_model(source: ExportSource, kind: str, out: Path, options: ExportOptions) -> dict[str, Any]:
    """Write an export.

    Args:
        source: From ``source_of``.
        kind: Name in ``catalogue.EXPORTERS``.
        out: Folder to create; what is there is replaced, in one rename.
        options: ``quant`` None takes the exporter's default.

    Returns:
        What was done and proved, as in certificate.json.

    Raises:
        RecipeError: No such exporter, or a number type that it can't write.
        ModelError: The model can't be exported so, or the result fails its own checks; nothing is written.
        MachineError: The disk can't take it, or the number type needs llama.cpp, which is not installed.
    """
    exporter: Exporter = EXPORTERS[kind]
    quant = options.quant or exporter.default_quant
    if quant is not None and quant not in exporter.quants:
        known = ", ".join(exporter.quants)
        raise RecipeError(f"--to {kind} can't write {quant}", key="--quant", cure=f"known: {known}")
    if exporter.needs_template and source.encoder is None:
        raise ModelError(
            "the model has no chat template", where=str(source.folder), cure="export it with --to gguf"
        )
    require_quantizer(quant)
    chosen = ExportOptions(quant, options.on_progress, options.measure_logits)
    with disk_errors(out):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with committed_dir(out, needed_bytes=exporter.size(source, chosen)) as folder:
        facts = exporter.write(source, folder, chosen)
        report = {"to": kind, "name": source.name, "source": source.fingerprint, **facts}
        write_json(folder / CERTIFICATE, report)
    return {"folder": str(out), **report}


def export_adapter(folder: Path, out: Path, request: ExportRequest) -> dict[str, Any]:
    """Write an adapter alone as a GGUF LoRA file, for llama.cpp's ``--lora`` on a GGUF of its base.

    Raises:
        RecipeError: A number type that is not for adapters.
        ModelError: The base can't become GGUF, or is not the adapter's.
        MachineError: The disk can't take it.
    """
    quant = request.quant or "f32"
    if quant not in ADAPTER_QUANTS:
        known = ", ".join(ADAPTER_QUANTS)
        raise RecipeError(f"an adapter can't be written as {quant}", key="--quant", cure=f"known: {known}")
    saved = read_adapter(folder)
    files = find_adapter_base(saved, request.base)
    with disk_errors(out):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with committed_dir(out) as part:
        facts = make_adapter_gguf(saved, files, part / f"adapter-{quant}.gguf", quant)
        report = {"to": "gguf", "trained_on": quantization_of(saved).method, **facts}
        write_json(part / CERTIFICATE, report)
    return {"folder": str(out), **report}


def source_of(files: BaseFiles, name: str) -> ExportSource:
    """Describe a plain model folder: a merged model of lora_kit, or a base as it is.

    Args:
        files: From ``find_base``.
        name: What to call it.

    Raises:
        ModelError: The tokenizer or the template can't be opened.
    """
    merged = merged_provenance(files.folder)
    tokenizer = load_tokenizer(files.folder)
    base = merged.get("base", {})
    provenance = {
        "base": base.get("source") or files.source,
        "base_fingerprint": base.get("fingerprint") or files.fingerprint,
        "training_fingerprint": merged.get("training_fingerprint") or "",
        "template": merged.get("template", "model"),
    }
    encoder = _encoder(tokenizer, files.folder, merged)
    return ExportSource(_file_name(name), files.folder, files.fingerprint, tokenizer, encoder, provenance)


def refuse_early(adapter: Path, request: ExportRequest) -> None:
    """Refuse a base that can't become what is asked for, before minutes are spent on merging.

    Raises:
        RecipeError: No such exporter.
        ModelError: The base can't become GGUF, or is not the adapter's.
        MachineError: The number type needs llama.cpp, which is not installed.
    """
    exporter: Exporter = EXPORTERS[request.kind]
    require_quantizer(request.quant)
    files = find_adapter_base(read_adapter(adapter), request.base)
    reason = gguf_refusal(files) if exporter.makes_gguf else ""
    if reason:
        raise ModelError(
            f"can't become GGUF: {reason}", where=files.source, cure="export it with --to safetensors"
        )


def gguf_refusal(files: BaseFiles) -> str:
    """Say, before any training, why a base can't become GGUF; empty if it can.

    Looks at config.json and the tokenizer; neither weights nor torch are needed.
    """
    reason = can_become_gguf(full_config(files.folder))
    return reason or vocabulary_refusal(load_tokenizer(files.folder))


def _encoder(tokenizer: Tokenizer, folder: Path, merged: dict[str, Any]) -> Encoder | None:
    """A merged model has the template of its training; a base may have one of its own, or none."""
    if not merged and not tokenizer.hf.chat_template:
        return None
    template = load_template(merged.get("template", "model"), tokenizer, folder=folder)
    return Encoder(tokenizer, template, merged.get("system"))


def _file_name(name: str) -> str:
    """A name that any file system and any shell takes."""
    kept = "".join(character if character.isalnum() or character in "._-" else "-" for character in name)
    return kept.strip(".-") or "model"
