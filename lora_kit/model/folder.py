"""A model folder, checked before any library opens it.

A downloaded folder is untrusted: pickles run code (CVE-2025-32434), config keys ran code (CVE-2026-4372), an
index may point out of the folder. So the names, the config and the headers are read here first, with plain
Python.
"""

import json
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.errors import ModelError, Problem
from lora_kit.model.family import Family, family_of
from lora_kit.model.safetensors_file import TensorEntry, read_header

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")
MAX_FILES = 2_000
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a checked folder holds.

    Args:
        folder: The folder.
        config: Content of config.json.
        family: The architecture's family.
        shards: The weight files, sorted by name.
        tensors: Tensor name to the shard's name and the place in it.
    """

    folder: Path
    config: dict[str, Any]
    family: Family
    shards: tuple[Path, ...]
    tensors: Mapping[str, tuple[str, TensorEntry]]


def check_folder(folder: Path, *, key: str = "base.model") -> ModelFolder:
    """Check a model folder: its files, config.json and the headers of its weights.

    Args:
        folder: The folder.
        key: What named it, for messages.

    Raises:
        ModelError: Anything that would run code, can't be read, is incomplete or is not supported.
    """
    _check_files(folder, key)
    config = _read_json(folder / "config.json", cure="a model folder has config.json and *.safetensors")
    family = family_of(config, where=str(folder / "config.json"))
    index = None if (folder / SINGLE).is_file() else _weight_map(folder)
    shards = _shards(folder, index)
    headers = {shard.name: read_header(shard) for shard in shards}
    tensors = {name: (shard, entry) for shard, header in headers.items() for name, entry in header.items()}
    if len(tensors) != sum(map(len, headers.values())):
        raise ModelError(
            "a tensor is in two shards", where=str(folder), cure="fetch or convert the model again"
        )
    if index is not None:
        _check_index(index, tensors, where=str(folder / INDEX))
    return ModelFolder(folder, config, family, shards, tensors)


def _read_json(path: Path, *, cure: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError("the file is missing", where=str(path), cure=cure) from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"not JSON: {error}", where=str(path), cure="fetch the model again") from None
    if not isinstance(content, dict):
        raise ModelError("not a JSON object", where=str(path), cure="fetch the model again")
    return content


def _check_files(folder: Path, key: str) -> None:
    if not folder.is_dir():
        raise ModelError("no such folder", where=str(folder), cure=f"correct {key}")
    if (folder / "adapter_config.json").exists():
        # transformers would open the base that this file names, wherever it is.
        cure = "name the base model that the adapter was trained on"
        raise ModelError("an adapter, not a base model", where=str(folder), key=key, cure=cure)
    problems = []
    for count, path in enumerate(folder.iterdir(), start=1):
        if count > MAX_FILES:
            raise ModelError(
                f"more than {MAX_FILES} files", where=str(folder), cure="name the model's own folder"
            )
        problems += _file_problems(path, folder)
    if problems:
        raise ModelError.collect(sorted(problems, key=str)[:20])


def _file_problems(path: Path, folder: Path) -> list[Problem]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return [Problem("the link leads nowhere", str(path), "", "fetch the model again")]
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return [Problem("neither a file nor a folder", str(path), "", "remove it")]
    if path.is_symlink() and not _stays_inside(path, folder):
        return [
            Problem("the link leads out of the model's folder", str(path), "", "replace it with the file")
        ]
    return []


def _stays_inside(link: Path, folder: Path) -> bool:
    """The hub's cache is allowed its own layout: ``<repo>/snapshots/<commit>/file -> ../../blobs/<hash>``."""
    target, home = link.resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs"
    return target.is_relative_to(home) or (home.parent.name == "snapshots" and target.parent == blobs)


def _shards(folder: Path, index: Mapping[str, str] | None) -> tuple[Path, ...]:
    if index is None:
        return (folder / SINGLE,)
    names = sorted(set(index.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"weight files are missing: {listing(missing)}", where=str(folder), cure="fetch the model again"
        )
    return tuple(folder / name for name in names)


def refuse_pickles(names: Iterable[str], *, where: str) -> None:
    """Refuse a model whose only weights are in formats that run code when they are read.

    Raises:
        ModelError: There are such weights; the caller has found no safetensors.
    """
    pickles = sorted(name for name in names if name.endswith(PICKLE_SUFFIXES) and name != "training_args.bin")
    if pickles:
        raise ModelError(
            f"pickle weights are not read: {listing(pickles)}",
            where=where,
            cure="convert them to safetensors on a trusted machine, or use a model that has safetensors",
        )


def _weight_map(folder: Path) -> dict[str, str]:
    path = folder / INDEX
    if not path.is_file():
        refuse_pickles((path.name for path in folder.iterdir()), where=str(folder))
        raise ModelError(
            f"neither {SINGLE} nor {INDEX}", where=str(folder), cure="name a folder with safetensors weights"
        )
    index = _read_json(path, cure="")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or "metadata" not in index:
        raise ModelError("no weight_map or no metadata", where=str(path), cure="fetch the model again")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelError(
                f"'{name}' is said to be in {shard!r}, which is no safetensors file of this folder",
                where=str(path),
                cure="don't use this model",
            )
    return weight_map


def _check_index(
    index: Mapping[str, str], tensors: Mapping[str, tuple[str, TensorEntry]], *, where: str
) -> None:
    wrong = {name for name, shard in index.items() if name not in tensors or tensors[name][0] != shard}
    wrong |= set(tensors) - set(index)
    if wrong:
        raise ModelError(
            f"the index and the weight files disagree on {listing(sorted(wrong))}",
            where=where,
            cure="fetch the model again",
        )


def listing(names: Iterable[str], limit: int = 5) -> str:
    """Join the first names and count the rest."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
