"""An adapter's GGUF file holds exactly its updates, in the row order of the base's GGUF."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_kit.artifacts.adapter import SavedAdapter, read_adapter, save_adapter
from lora_kit.errors import ModelError
from lora_kit.export.gguf.adapter_file import make_adapter_gguf
from lora_kit.export.gguf.file_weights import read_tensor
from lora_kit.export.gguf.plan import plan_export
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter
from lora_kit.model.base import find_base
from lora_kit.model.gguf_file import read_gguf
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec


def adapter(base: Path, folder: Path, *, rank_stabilized: bool, **extra: Any) -> SavedAdapter:
    files = find_base(BaseSpec(model=str(base)))
    model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
    spec = LoraSpec(rank=4, alpha=6, rank_stabilized=rank_stabilized)
    peft_model = add_adapter(model, spec, files.family, seed=1)
    draw = torch.Generator().manual_seed(2)
    tensors = {
        name: torch.randn(t.shape, generator=draw) for name, t in adapter_tensors(peft_model).items()
    } | extra
    config = adapter_config(peft_model, str(base))
    save_adapter(folder, tensors=tensors, config=config, provenance={}, files={})
    return read_adapter(folder)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom"])
@pytest.mark.parametrize("rank_stabilized", [False, True], ids=["plain", "stabilized"])
def test_updates_are_the_adapters(
    family: str, rank_stabilized: bool, tiny_folder: Any, tmp_path: Path
) -> None:
    from lora_kit.export.deltas import adapter_deltas

    base = tiny_folder(family)
    saved = adapter(base, tmp_path / "adapter", rank_stabilized=rank_stabilized)
    path = tmp_path / "a.gguf"
    report = make_adapter_gguf(saved, find_base(BaseSpec(model=str(base))), path, "f32")
    header = read_gguf(path)
    deltas = adapter_deltas(saved)
    assert report["modules"] == len(deltas) > 0
    scale = header.metadata["adapter.lora.alpha"] / 4  # as llama.cpp has it
    planned = {tensor.name: tensor for tensor in plan_export(base, "f32").tensors}
    for name in {name.rpartition(".")[0] for name in header.kinds}:
        a, b = (read_tensor(path, header, f"{name}.lora_{part}") for part in "ab")
        stored = planned[name].stored
        update = scale * (b @ a)
        if stored.order is not None:
            update = update[np.argsort(stored.order)]
        module = stored.name.removesuffix(".weight")
        wanted = next(make() for key, make in deltas.items() if key.endswith(module))
        assert np.allclose(update, wanted.numpy(), atol=1e-5)


def test_what_gguf_has_no_place_for_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    magnitude = {"base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector.weight": torch.ones(64)}
    saved = adapter(tiny_llama, tmp_path / "adapter", rank_stabilized=False, **magnitude)
    with pytest.raises(ModelError, match=r"no place.*lora_magnitude_vector"):
        make_adapter_gguf(saved, find_base(BaseSpec(model=str(tiny_llama))), tmp_path / "a.gguf", "f32")
