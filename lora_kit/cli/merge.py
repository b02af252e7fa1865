"""`lora-kit merge`: adapter and base as one plain model, with a certificate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lora_kit.cli.console import console, emit_json, messages
from lora_kit.cli.importing import importing

if TYPE_CHECKING:
    from lora_kit.export.merge import MergeReport


def merge_command(
    target: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or an adapter folder.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default: RUN/merged.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="For an adapter of a quantized base: `dequantized` (default: the weights that it was "
            "trained on) or `original`. Else: where the adapter's base is now, if it moved.",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option("--dtype", help="Number type of the merged weights; default: the one trained with."),
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing merged model.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Merge, load the result as anybody would, and compare its logits with base + adapter on real rows."""
    with importing():
        from lora_kit import pipeline
        from lora_kit.cli.progress import observing

    with observing() as observer:
        report = pipeline.merge_run(target, observer, out=out, force=force, dtype=dtype, base=base)
    if as_json:
        emit_json(report.to_json())
    else:
        _show(report)


def _show(report: "MergeReport") -> None:
    console.print(
        f"merged {report.modules} layers into {report.folder} ({report.dtype}, {report.base} weights)\n"
        f"largest logit difference to base + adapter: {report.logits.max_logit_difference:.3g} "
        f"(largest logit {report.logits.max_logit:.3g}), same most likely token at "
        f"{report.logits.greedy_agreement:.2%} of {report.logits.tokens} positions",
        markup=False,
        soft_wrap=True,
    )
    if report.original is None:
        return
    messages.print(
        "note: the original weights are not what was trained: with the adapter, their logits differ by "
        f"up to {report.original.max_logit_difference:.3g}, and {report.original.greedy_agreement:.2%} of "
        "the most likely tokens are the same",
        markup=False,
        soft_wrap=True,
        style="yellow" if report.base == "original" else "dim",
    )
