"""An adapter on disk: PEFT's own two files, and beside them where it comes from.

``adapter_config.json`` and ``adapter_model.safetensors`` are PEFT's names and content,
so that PEFT alone can load the folder. ``lora_kit.json`` records base, template, data
and recipe by fingerprint, and the sha256 of every file: PEFT itself loads flipped bits,
NaN and a wrong base of the same shape without a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_kit.artifacts.commit import committed_dir, failpoint, write_file, write_json
from lora_kit.artifacts.manifest import (
    FORMAT_VERSION,
    describe_files,
    read_object,
    read_sealed,
    seal,
    verify_files,
)
from lora_kit.artifacts.tensor_file import read_tensors, save_tensors, tensor_bytes
from lora_kit.errors import ModelError, Problem

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PROVENANCE = "lora_kit.json"
CARD = "README.md"
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_model.ckpt")
_HEADROOM_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """An adapter's folder, checked when it was opened.

    Args:
        folder: Where it lies.
        config: Content of PEFT's ``adapter_config.json``.
        provenance: Content of ``lora_kit.json``; empty for a folder that PEFT or another tool wrote.
    """

    folder: Path
    config: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def init(self) -> str:
        """How it began: ``default``, ``pissa`` or ``loftq``; ``default`` if nobody wrote it down."""
        return str(self.provenance.get("init", "default"))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Read the weights, CPU, by PEFT's names.

        Raises:
            ModelError: Damaged, or holding NaN or infinity.
        """
        return read_tensors(self.folder / WEIGHTS)


def save_adapter(
    folder: Path,
    *,
    tensors: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    files: Mapping[str, bytes | Path],
) -> None:
    """Commit an adapter folder with one rename; an existing one is replaced.

    Args:
        folder: Usually ``RunDir.adapter``; its parent must exist.
        tensors: By PEFT's names (``base_model.model....lora_A.weight``).
        config: Content of ``adapter_config.json``.
        provenance: What ``lora_kit.json`` says apart from ``format_version`` and ``files``.
        files: More files by name: content, or a file to copy (tokenizer, recipe, README.md ...).

    Raises:
        MachineError: Disk full, read-only, or gone; an existing adapter is as it was.
    """
    reserved = {CONFIG, WEIGHTS, PROVENANCE} & files.keys()
    assert not reserved, f"written by save_adapter itself: {reserved}"
    with committed_dir(folder, manifest=False, needed_bytes=tensor_bytes(tensors) + _HEADROOM_BYTES) as part:
        save_tensors(part / WEIGHTS, tensors)
        failpoint("adapter.after_weights")
        write_json(part / CONFIG, config)
        for name, content in files.items():
            assert Path(name).name == name, f"not a plain file name: {name!r}"
            write_file(part / name, content if isinstance(content, bytes) else content.read_bytes())
        hashes = {name: entry["sha256"] for name, entry in describe_files(part).items()}
        write_json(part / PROVENANCE, seal({"format_version": FORMAT_VERSION, **provenance, "files": hashes}))


def read_adapter(folder: Path) -> SavedAdapter:
    """Open an adapter folder, ours or PEFT's, and check it against its own hashes.

    The model card is for people to edit and is not checked.

    Raises:
        ModelError: Not an adapter, pickled weights, or a file that is missing or was changed.
        MachineError: Written by a version of lora_kit with another format.
    """
    _require_safetensors(folder)
    provenance = read_sealed(folder / PROVENANCE) if (folder / PROVENANCE).exists() else {}
    hashes = {name: value for name, value in provenance.get("files", {}).items() if name != CARD}
    problems = [
        Problem(text, str(folder), cure="get the folder again from where it was made")
        for text in verify_files(folder, hashes)
    ]
    if problems:
        raise ModelError.collect(problems)
    return SavedAdapter(folder, read_object(folder / CONFIG), provenance)


def _require_safetensors(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError("no such adapter folder", where=str(folder), cure="name a run or an adapter folder")
    pickles = [name for name in _PICKLES if (folder / name).exists()]
    if pickles:
        raise ModelError(
            f"holds {pickles[0]}: pickled weights can run code and are never read",
            where=str(folder),
            cure="convert it to safetensors on a machine that you trust, and delete it",
        )
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).exists()]
    if missing:
        raise ModelError(f"is not an adapter: {' and '.join(missing)} missing", where=str(folder))
