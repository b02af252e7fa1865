"""Seconds and peak memory of an export, beside a process that has imported the same modules and no more.

The whole of what `lora-kit export MODEL --to gguf` does after its command line is read: weights written, read
back and compared, tokens compared through the file's own tokenizer, logits of both models compared. Aim: at
most twice the largest tensor (float32) beyond the imports.
"""

import argparse
import sys
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from benches.figures import Figures, as_text, finish, header, new_parser
from benches.plots import Panel
from benches.processes import answer, turn


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    parser = new_parser("export", __doc__)
    parser.add_argument("--model", help="what to export: a merged model's folder (default: --base)")
    parser.add_argument("--to", default="gguf", help="gguf, ollama or safetensors (gguf)")
    parser.add_argument("--quant", default="q4_0", help="as of lora-kit export (q4_0)")
    options = parser.parse_args(arguments)
    return finish(measure(options), options, table, panels)


def measure(options: argparse.Namespace) -> Figures:
    """Export once, then import what that has imported."""
    from lora_kit.model.base import find_base
    from lora_kit.model.folder import check_folder
    from lora_kit.recipe.schema import BaseSpec

    folder = find_base(BaseSpec(model=options.model or options.base)).folder  # a GGUF file is converted here
    sizes = [entry.shape for _, entry in check_folder(folder).tensors.values()]
    largest = max(4 * _numbers(shape) for shape in sizes)
    with tempfile.TemporaryDirectory() as temporary:
        job = {"model": str(folder), "to": options.to, "quant": options.quant, "out": f"{temporary}/out"}
        began = time.perf_counter()
        export = turn("benches.export", {"side": "export", **job})
        seconds = time.perf_counter() - began
        names = Path(temporary) / "modules"
        names.write_text("\n".join(export.pop("modules")), "utf-8")
        imports = turn("benches.export", {"side": "imports", "names": str(names)})
    beyond = export["peak_bytes"] - imports["peak_bytes"]
    return {
        **header("torch", "transformers", "gguf"),
        "options": as_text(options),
        "seconds": seconds,
        "written_bytes": export["written_bytes"],
        "largest_tensor_bytes": largest,
        "peak_bytes": {"imports": imports["peak_bytes"], "export": export["peak_bytes"]},
        "share_of_largest": beyond / largest,
    }


def _numbers(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def side_export(job: Figures) -> Figures:
    """Export, as the command does."""
    from lora_kit.export.exporter import ExportRequest
    from lora_kit.pipeline import export_target

    class Silent:
        def phase(self, text: str) -> None:
            """Say nothing."""

        def progress(self, done: int, total: int) -> None:
            """Say nothing."""

    out = Path(job["out"])
    export_target(job["model"], ExportRequest(job["to"], job["quant"], out), Silent())
    written = sum(path.stat().st_size for path in out.iterdir())
    return {"written_bytes": written, "modules": sorted(sys.modules)}


def side_imports(job: Figures) -> Figures:
    """Import every module of a list, as far as they can be imported by name."""
    for name in Path(job["names"]).read_text("utf-8").split("\n"):
        with suppress(Exception):
            import_module(name)
    return {"modules_here": len(sys.modules)}


def table(figures: Figures) -> str:
    """Write the figures for people."""
    peaks = figures["peak_bytes"]
    largest = figures["largest_tensor_bytes"]
    share = f"{figures['share_of_largest']:.2f} times the largest tensor ({largest / 1e6:.0f} MB)"
    lines = (
        figures["machine"],
        f"{figures['seconds']:.1f} s for {figures['written_bytes'] / 1e6:.1f} MB",
        f"peak {peaks['export'] / 1e6:.0f} MB, of imports {peaks['imports'] / 1e6:.0f} MB: {share} more",
    )
    return "\n".join(lines)


def panels(figures: Figures) -> list[Panel]:
    """Draw both peaks."""
    return [
        Panel("peak memory, MB", {name: [peak / 1e6] for name, peak in figures["peak_bytes"].items()}),
    ]


if __name__ == "__main__":
    answer({"export": side_export, "imports": side_imports})
