"""Models to export, and what every test of an export needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit.export.exporter import ExportOptions, ExportSource
from lora_kit.export.run import export_model, source_of
from lora_kit.model.base import find_base
from lora_kit.recipe.schema import BaseSpec


@pytest.fixture(scope="session")
def source() -> Callable[[Path], ExportSource]:
    """Describe a model folder."""
    return lambda folder: source_of(find_base(BaseSpec(model=str(folder))), "tiny")


@pytest.fixture
def export(tmp_path: Path, source: Callable[[Path], ExportSource]) -> Callable[..., dict[str, Any]]:
    """Export a model folder into ``tmp_path / kind``."""

    def run(folder: Path, kind: str = "gguf", quant: str | None = None, **options: Any) -> dict[str, Any]:
        return export_model(source(folder), kind, tmp_path / kind, ExportOptions(quant, **options))

    return run
