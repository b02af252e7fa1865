"""`lora-kit evaluate`: base and adapter, or any model, on a suite."""

from pathlib import Path
from typing import Annotated

import typer

from lora_kit.cli.console import console, emit_json
from lora_kit.cli.importing import importing


def evaluate_command(
    target: Annotated[
        str,
        typer.Argument(metavar="RUN|MODEL|GGUF", help="A run, an adapter folder, a model, or a GGUF file."),
    ],
    suite: Annotated[str, typer.Option("--suite", help="Name or file of the suite.")] = "quickstart",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for results.json.")] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="Where the adapter's base is now, if it moved; a GGUF file's base."),
    ] = None,
    *,
    engine: Annotated[str, typer.Option(help="transformers, or vllm (extra vllm).")] = "transformers",
    lm_eval: Annotated[
        str, typer.Option("--lm-eval", metavar="TASK,...", help="Tasks of lm-eval too (extra lm-eval).")
    ] = "",
    lm_eval_tasks: Annotated[
        Path | None, typer.Option("--lm-eval-tasks", help="A folder with more tasks for --lm-eval.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest generated answer.")] = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts that are answered at once.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Score a model on a suite; a run's adapter is compared with its base on the same prompts."""
    with importing():
        from lora_kit import pipeline
        from lora_kit.cli.progress import observing
        from lora_kit.cli.show import show_results
        from lora_kit.harness.open_engines import EvaluateOptions
        from lora_kit.recipe.schema import EvaluateSpec
        from lora_kit.report.evaluation_page import report_on

    spec = EvaluateSpec(max_new_tokens=max_new_tokens, batch_size=batch_size)
    tasks = tuple(name.strip() for name in lm_eval.split(",") if name.strip())
    options = EvaluateOptions(base, engine, tasks, lm_eval_tasks)
    with observing() as observer:
        folder, results = pipeline.evaluate_target(target, suite, spec, observer, out=out, options=options)
    page, _ = report_on(folder)
    if as_json:
        emit_json(results.to_json())
        return
    show_results(results.to_json())
    console.print(f"results: {folder / 'results.json'}\nreport: {page}", markup=False, soft_wrap=True)
