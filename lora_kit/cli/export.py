"""`lora-kit export`: a run or a model as GGUF, for Ollama, or as safetensors, with a certificate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lora_kit.cli.console import console, emit_json
from lora_kit.cli.importing import importing


def export_command(
    target: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run, an adapter folder, or a model.")],
    to: Annotated[str, typer.Option("--to", help="gguf, ollama or safetensors.")] = "gguf",
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant",
            help="f32, f16, bf16, q8_0 (default), q5_1, q5_0, q4_1, q4_0; by llama.cpp q6_k, q5_k_m, q4_k_m.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; default: RUN/exports/...")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Where the adapter's base is now, if it moved.")
    ] = None,
    *,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="The adapter alone, as a GGUF LoRA file.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing export.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Export, read it back, and prove its numbers and tokens; nothing is left if a proof fails."""
    with importing():
        from lora_kit import pipeline
        from lora_kit.cli.progress import observing
        from lora_kit.export.exporter import ExportRequest

    request = ExportRequest(to, quant, out, force=force, base=base, adapter_only=adapter_only)
    with observing() as observer:
        report = pipeline.export_target(target, request, observer)
    if as_json:
        emit_json(report)
        return
    console.print("\n".join(_lines(report)), markup=False, soft_wrap=True)


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [f"written: {report['folder']}", *_file_lines(report)]
    same = report.get("ollama_same_tokens") or report.get("same_tokens")
    if same:
        lines.append(
            f"same tokens as in training: {same['conversations']} conversations, {same['tokens']} tokens"
        )
    logits = report.get("logits") or {}
    if "kl" in logits:
        lines.append(
            f"the file's weights against the model's: KL {logits['kl']:.3g} nats a token, "
            f"same most likely token at {logits['greedy_agreement']:.1%} of {logits['tokens']} positions"
        )
    held = report.get("trained_on", "none")
    if held != "none":
        lines.append(
            f"note: it was trained on the base in {held}, and on another GGUF of the base it is not quite "
            "the same model (the merged one is: export without --adapter-only)"
        )
    if report.get("modelfile"):
        lines.append(f"next: ollama create {report['name']} -f {report['folder']}/{report['modelfile']}")
    return lines


def _file_lines(report: dict[str, Any]) -> list[str]:
    if "bytes" not in report:
        return []
    size = f"{report['bytes'] / 1e6:.1f} MB"
    lines = [f"{report['file']}: {size}, {report['architecture']} {report['quant']}"]
    if "types" in report:
        most_first = sorted(report["types"].items(), key=lambda one: -one[1])
        lines.append("tensors: " + ", ".join(f"{name} in {count}" for name, count in most_first))
    return lines
