"""One GGUF file, for llama.cpp and everything that is built on it."""

from pathlib import Path
from typing import Any

from lora_kit.export.exporter import Exporter, ExportOptions, ExportSource
from lora_kit.export.gguf.k_quants import K_QUANTS
from lora_kit.export.gguf.make import DEFAULT, make_gguf, size_of
from lora_kit.export.gguf.quantize import NUMBER_TYPES


def write(source: ExportSource, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Write ``NAME-QUANT.gguf``."""
    return make_gguf(source, folder / f"{source.name}-{options.quant}.gguf", options).report


EXPORTER = Exporter(
    name="gguf",
    description="one file for llama.cpp",
    default_quant=DEFAULT,
    quants=(*NUMBER_TYPES, *K_QUANTS),
    needs_template=False,
    size=size_of,
    write=write,
    makes_gguf=True,
)
