"""`lora-kit report`: the pages about a run or an evaluation, written anew from what is on disk."""

from pathlib import Path
from typing import Annotated

import typer

from lora_kit.cli.console import console, emit_json


def report_command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory, or a folder with results.json.")
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Write report.html and report.md from what a run, an evaluation or a comparison left on disk."""
    from lora_kit.artifacts.run_dir import open_run
    from lora_kit.report.evaluation_page import write_evaluation
    from lora_kit.report.write import write_report

    is_evaluation = (run / "results.json").is_file()
    html, markdown = write_evaluation(run) if is_evaluation else write_report(open_run(run, create=False))
    if as_json:
        emit_json({"run": str(run), "html": str(html), "markdown": str(markdown)})
        return
    console.print(f"report: {html}\n        {markdown}", markup=False, soft_wrap=True)
