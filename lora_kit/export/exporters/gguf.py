"""One GGUF file, for llama.cpp and everything that is built on it."""

from pathlib import Path
from typing import Any

from lora_kit.export.exporter import Exporter, ExportOptions, ExportSource
from lora_kit.export.gguf.make import DEFAULT, make_gguf, plan_of
from lora_kit.export.gguf.quantize import NUMBER_TYPES


def size(source: ExportSource, options: ExportOptions) -> int:
    """Bytes of the file; the vocabulary is a few megabytes."""
    return plan_of(source, options).data_bytes + (8 << 20)


def write(source: ExportSource, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Write ``NAME-QUANT.gguf``."""
    return make_gguf(source, folder / f"{source.name}-{options.quant}.gguf", options).report


EXPORTER = Exporter(
    name="gguf",
    description="one file for llama.cpp",
    default_quant=DEFAULT,
    quants=tuple(NUMBER_TYPES),
    needs_template=False,
    size=size,
    write=write,
    makes_gguf=True,
)
