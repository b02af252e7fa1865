"""Weights come a piece at a time, whatever their order and number type."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lora_kit.export.gguf.plan import PlannedTensor
from lora_kit.export.gguf.quantize import NUMBER_TYPES
from lora_kit.export.gguf.stored import StoredTensor
from lora_kit.export.gguf.write import write_gguf
from lora_kit.model.safetensors_file import read_header


@pytest.fixture
def stored(tmp_path: Path) -> StoredTensor:
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    save_file(
        {"first": np.ones((3, 5), np.float32), "large": np.arange(1 << 23).reshape(-1, 512) % 999 / 7}, path
    )
    return StoredTensor("large", path, read_header(path)["large"])


def test_pieces_are_the_whole_in_order(stored: StoredTensor) -> None:
    wanted = (np.arange(1 << 23).reshape(-1, 512) % 999 / 7).astype(np.float32)
    assert np.array_equal(np.concatenate(list(stored.chunks())), wanted)
    order = np.arange(len(wanted))[::-1].copy()
    turned = StoredTensor("large", stored.path, stored.entry, order)
    assert np.array_equal(np.concatenate(list(turned.chunks())), wanted[::-1])


@pytest.mark.parametrize("quant", ["f32", "q4_0"])
def test_a_tensor_is_never_in_memory_as_a_whole(quant: str, stored: StoredTensor, tmp_path: Path) -> None:
    tensor = PlannedTensor("output.weight", NUMBER_TYPES[quant], stored.shape, stored)
    write_gguf(tmp_path / "warm.gguf", "llama", {}, [])  # imports
    tracemalloc.start()
    write_gguf(tmp_path / "x.gguf", "llama", {}, [tensor])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20 < 8 << 23  # float64 in the file
