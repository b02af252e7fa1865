"""What every test with the real llama.cpp needs; without llama-cpp-python all of them are skipped."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lora_kit.export.exporter import ExportOptions
from lora_kit.export.run import export_model, source_of
from lora_kit.model.base import find_base
from lora_kit.recipe.schema import BaseSpec


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, and say how to change that."""
    if find_spec("llama_cpp") is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="llama-cpp-python is not here: scripts/test-llama"))


@pytest.fixture
def gguf(tmp_path: Path) -> Callable[..., Path]:
    """Export a model folder and return its GGUF file."""

    def make(folder: Path, quant: str = "f32", **options: Any) -> Path:
        source = source_of(find_base(BaseSpec(model=str(folder))), "tiny")
        settings = ExportOptions(quant, measure_logits=False, **options)
        report = export_model(source, "gguf", tmp_path / f"gguf-{quant}", settings)
        path = Path(report["folder"]) / report["file"]
        assert report["same_tokens"]["doors"][-1] == "llama.cpp's own tokenizer"
        return path

    return make
