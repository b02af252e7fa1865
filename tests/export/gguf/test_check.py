"""C15 for files of our own making: 300 mutated headers are errors, or change nothing that counts."""

import random
from pathlib import Path
from typing import Any

import pytest

from lora_kit.errors import ModelError
from lora_kit.export.gguf.check import check_file, compare_weights
from lora_kit.export.gguf.make import file_metadata
from lora_kit.export.gguf.plan import plan_export
from lora_kit.export.gguf.write import write_gguf


@pytest.fixture
def made(tiny_llama: Path, source: Any, tmp_path: Path) -> tuple[Path, Any, Any]:
    plan = plan_export(tiny_llama, "q4_0")
    metadata = file_metadata(source(tiny_llama), plan)
    path = tmp_path / "x.gguf"
    write_gguf(path, "llama", metadata, plan.tensors)
    return path, metadata, plan.tensors


def test_300_mutated_headers_are_refused(made: tuple[Path, Any, Any]) -> None:
    path, metadata, tensors = made
    original = path.read_bytes()
    header_end = min(start for start, _ in check_file(path, metadata, tensors).tensors.values())
    draw = random.Random(15)
    for _ in range(300):
        raw = bytearray(original)
        place = draw.choice([draw.randrange(header_end - 40), draw.randrange(32)])
        raw[place] ^= 1 << draw.randrange(8)
        path.write_bytes(raw)
        try:
            header = check_file(path, metadata, tensors)
            compare_weights(path, header, tensors)
        except ModelError:
            continue
        # Only what was not planned may differ: the version (2 is read too), the architecture.
        assert place < 8 or b"general.architecture" in original[max(0, place - 60) : place + 60], place


def test_a_cut_file_is_refused(made: tuple[Path, Any, Any]) -> None:
    path, metadata, tensors = made
    path.write_bytes(path.read_bytes()[:-33])
    with pytest.raises(ModelError, match="cut off or damaged"):
        check_file(path, metadata, tensors)
