"""`lora-kit suites`: what a model can be judged on."""

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
