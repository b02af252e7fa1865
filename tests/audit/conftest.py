"""A finished tiny run whose adapter was audited by nobody yet, and ways to spoil it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_kit.artifacts.manifest import file_sha256, seal
from lora_kit.recipe.load import load_recipe
from lora_kit.train.observe import Silent
from lora_kit.train_run import train_recipe

Spoil = Callable[[dict[str, Tensor]], None]


@pytest.fixture
def finished(tiny_recipe: Callable[..., Path], tmp_path: Path) -> Path:
    """A run of six steps; its first step was audited."""
    recipe = load_recipe(tiny_recipe(engine={"audit": "on"}))
    train_recipe(recipe, tmp_path / "run", Silent())
    return tmp_path / "run"


@pytest.fixture
def spoiled(finished: Path) -> Callable[[Spoil], Path]:
    """Change the adapter's tensors, and make its hashes anew as somebody would who means it."""

    def change(spoil: Spoil) -> Path:
        folder = finished / "adapter"
        tensors = load_file(folder / "adapter_model.safetensors")
        spoil(tensors)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        provenance = json.loads((folder / "lora_kit.json").read_text())
        del provenance["sha256"]
        provenance["files"]["adapter_model.safetensors"] = file_sha256(folder / "adapter_model.safetensors")
        (folder / "lora_kit.json").write_text(json.dumps(seal(provenance)))
        return finished

    return change


@pytest.fixture
def alone(finished: Path, tmp_path: Path) -> Path:
    """The adapter's folder by itself; the rows are gone."""
    shutil.copytree(finished / "adapter", tmp_path / "alone")
    shutil.rmtree(finished)
    (tmp_path / "rows.jsonl").unlink()
    return tmp_path / "alone"
