"""P7: an adapter's base is known by its numbers, not by its name or its files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_kit.model import fingerprint as module
from lora_kit.model.fingerprint import fingerprint
from lora_kit.model.folder import check_folder

Weights = dict[str, torch.Tensor]


def of(folder: Path, cache: Path) -> str:
    return fingerprint(check_folder(folder), cache=cache)


def changed(folder: Path, to: Path, edit: Callable[[Weights], Weights], **config: Any) -> Path:
    """A copy of a model folder with other weights or config keys."""
    shutil.copytree(folder, to)
    save_file(
        {k: t.contiguous() for k, t in edit(load_file(folder / "model.safetensors")).items()},
        to / "model.safetensors",
    )
    content = json.loads((folder / "config.json").read_text("utf-8"))
    (to / "config.json").write_text(json.dumps(content | config))
    return to


def sibling(weights: Weights) -> Weights:
    """One number, one bit."""
    norm = weights["model.norm.weight"]
    norm[0] = torch.nextafter(norm[0], torch.tensor(9.0))
    return weights


def swapped_layers(weights: Weights) -> Weights:
    other = {"model.layers.0.": "model.layers.1.", "model.layers.1.": "model.layers.0."}
    return {other.get(name[:15], name[:15]) + name[15:]: tensor for name, tensor in weights.items()}


def requantized(weights: Weights) -> Weights:
    return {name: tensor.bfloat16().float() for name, tensor in weights.items()}


@pytest.mark.fault("C9", "P7")
def test_six_wrong_bases_and_two_wrong_configs(tiny_llama: Path, tiny_folder: Any, tmp_path: Path) -> None:
    folders = [
        tiny_llama,
        tiny_folder("llama", seed=1),
        tiny_folder("llama", num_hidden_layers=1),
        tiny_folder("llama", vocab_size=304),
        changed(tiny_llama, tmp_path / "sibling", sibling),
        changed(tiny_llama, tmp_path / "requantized", requantized),
        changed(tiny_llama, tmp_path / "swapped", swapped_layers),
        changed(tiny_llama, tmp_path / "bf16", lambda w: {name: t.bfloat16() for name, t in w.items()}),
        changed(tiny_llama, tmp_path / "theta", lambda w: w, rope_theta=5e5),
        changed(tiny_llama, tmp_path / "eps", lambda w: w, rms_norm_eps=1e-3),
    ]
    assert len({of(folder, tmp_path / "cache") for folder in folders}) == len(folders)


def test_what_does_not_matter(tiny_llama: Path, tmp_path: Path) -> None:
    expected = of(tiny_llama, tmp_path / "cache")
    renamed = changed(tiny_llama, tmp_path / "renamed", lambda w: w, _name_or_path="me/mine", use_cache=False)
    assert of(renamed, tmp_path / "cache") == expected
    sharded = changed(tiny_llama, tmp_path / "sharded", lambda w: w)
    weights = load_file(sharded / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    names = sorted(weights, reverse=True)
    index = {}
    for number, part in enumerate((names[:5], names[5:]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, sharded / shard)
        index |= dict.fromkeys(part, shard)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert of(sharded, tmp_path / "cache") == expected


def test_the_second_time_no_weight_is_read(tiny_llama: Path, tmp_path: Path, monkeypatch: Any) -> None:
    folder = changed(tiny_llama, tmp_path / "model", lambda w: w)
    first = of(folder, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(module, "hash_bytes", lambda *_: pytest.fail("read again"))
        assert of(folder, tmp_path / "cache") == first
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)
    assert of(folder, tmp_path / "cache") != first
