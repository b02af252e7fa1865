"""What an exporter is: a name, and a function that fills a folder from a plain model folder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_kit.data.encode import Encoder
from lora_kit.data.tokenizer import Tokenizer


def _silent(done: int, total: int) -> None:
    del done, total


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A model to export.

    Args:
        name: What to call it; goes into files as it is.
        folder: config.json, safetensors and tokenizer: a merged model, or a base.
        fingerprint: Of the weights in the folder.
        tokenizer: Of the folder.
        encoder: The training's encoder; None for a base without a chat template.
        provenance: ``base``, ``base_fingerprint``, ``training_fingerprint``, ``template``; empty if unknown.
    """

    name: str
    folder: Path
    fingerprint: str
    tokenizer: Tokenizer
    encoder: Encoder | None
    provenance: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How to export.

    Args:
        quant: Name of a number type of ``gguf.quantize.NUMBER_TYPES``; None: the exporter's default.
        on_progress: Told of tensors done and all.
        measure_logits: Whether to compare logits of the model with those of the file.
    """

    quant: str | None = None
    on_progress: Callable[[int, int], None] = _silent
    measure_logits: bool = True


@dataclass(frozen=True, slots=True)
class Exporter:
    """A kind of export.

    Args:
        name: Name in the catalogue.
        description: One line for people.
        default_quant: Number type if none is asked for; None: as the model has it.
        quants: Number types that it can write.
        needs_template: Whether a base without a chat template is refused.
        size: Estimates the bytes that will be written.
        write: Fills the folder and returns what it did and proved, as JSON.
        makes_gguf: Whether there is a GGUF file in it, so that bases without a mapping are refused early.
    """

    name: str
    description: str
    default_quant: str | None
    quants: tuple[str, ...]
    needs_template: bool
    size: Callable[[ExportSource, ExportOptions], int]
    write: Callable[[ExportSource, Path, ExportOptions], dict[str, Any]]
    makes_gguf: bool = False


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What a user asks for.

    Args:
        kind: Name in ``catalogue.EXPORTERS``.
        quant: Number type; None: the exporter's default.
        out: Folder to write; None: beside the run, or ``exports/`` for a model.
        force: Replace an existing folder.
        base: Where the adapter's base is now, if it has moved.
        adapter_only: Write the adapter alone, as a GGUF LoRA file.
    """

    kind: str
    quant: str | None = None
    out: Path | None = None
    force: bool = False
    base: str | None = None
    adapter_only: bool = False
