"""`lora-kit suites`: what a model can be judged on."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lora_kit.cli.console import console, emit_json

app = typer.Typer(help="Suites of prompts with reference answers.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


@app.command("list")
def list_command(*, as_json: Json = False) -> None:
    """List the shipped suites."""
    from lora_kit.harness.suite import list_suites

    suites = list_suites()
    if as_json:
        emit_json([{"name": s.name, "description": s.description, "prompts": len(s.items)} for s in suites])
        return
    table = Table("name", "prompts", "what it asks", box=None, pad_edge=False)
    for suite in suites:
        table.add_row(suite.name, str(len(suite.items)), suite.description)
    console.print(table)


@app.command("show")
def show_command(name: str, *, as_json: Json = False) -> None:
    """Show a suite's prompts and references."""
    from lora_kit.harness.suite import load_suite

    suite = load_suite(name)
    items = [
        {"id": i.id, "category": i.category, "prompt": i.messages[-1].content, "reference": i.reference}
        for i in suite.items
    ]
    if as_json:
        emit_json({"name": suite.name, "description": suite.description, "items": items})
        return
    for item in items:
        console.print(f"{item['id']}  [{item['category']}]", style="bold", markup=False, highlight=False)
        console.print(f"{item['prompt']}\n→ {item['reference']}\n", markup=False, highlight=False)


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="Questions: JSONL, JSON or CSV, also gzipped.")],
    name: Annotated[str, typer.Option("--name", help="Name of the suite.")],
    kind: Annotated[
        str, typer.Option("--kind", help="vicuna, alpaca_eval, mt_bench, csv, jsonl, or auto.")
    ] = "auto",
    answers: Annotated[
        list[Path] | None, typer.Option("--answers", help="Answers of a model; may be given several times.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to; NAME if not given.")] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Make a suite of the questions and answers of Vicuna, AlpacaEval, MT-bench, or a plain table."""
    from lora_kit.harness.import_suite import import_suite

    folder = out or Path(name)
    path, suite = import_suite(file, kind=kind, name=name, answers=answers or (), out=folder, force=force)
    if as_json:
        emit_json({"suite": str(path), "prompts": len(suite.items), "fingerprint": suite.fingerprint})
        return
    console.print(f"{len(suite.items)} prompts: {path}", markup=False, soft_wrap=True)
