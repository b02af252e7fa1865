"""`lora-kit recipes`: what is shipped, how to start from it, and which keys there are."""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from lora_kit.cli.console import console, emit_json, messages
from lora_kit.errors import MachineError
from lora_kit.recipe.shipped import find_recipe, list_recipes

app = typer.Typer(help="Ready recipes, and the keys that a recipe has.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


@app.command("list")
def list_command(*, as_json: Json = False) -> None:
    """List the shipped recipes."""
    cards = list_recipes()
    if as_json:
        emit_json([{"name": card.name, "path": str(card.path), **card.fields} for card in cards])
        return
    longest = max(len(card.name) for card in cards)
    name = Column("name", no_wrap=True, min_width=longest)  # to be copied
    table = Table(name, "for", "hardware", "peak memory", "minutes", "numbers", box=None, pad_edge=False)
    for card in cards:
        row = [
            card.fields.get(label, "") for label in ("for", "hardware", "peak memory", "minutes", "numbers")
        ]
        table.add_row(card.name, *row)
    console.print(table)


@app.command("show")
def show_command(name: str, *, as_json: Json = False) -> None:
    """Print a recipe; with --json, complete with every default."""
    path = find_recipe(name)
    if as_json:
        from lora_kit.recipe.fingerprint import recipe_fingerprint
        from lora_kit.recipe.load import load_recipe, portable

        recipe = load_recipe(path)
        emit_json({"path": str(path), "fingerprint": recipe_fingerprint(recipe), "recipe": portable(recipe)})
    else:
        console.out(path.read_text("utf-8").rstrip("\n"), highlight=False)


@app.command("copy")
def copy_command(
    name: str,
    to: Annotated[Path | None, typer.Argument(help="File to write; the current directory if absent.")] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
) -> None:
    """Copy a shipped recipe, to edit it."""
    source = find_recipe(name)
    target = to or Path(source.name)
    if target.is_dir():
        target /= source.name
    if target.exists() and not force:
        raise MachineError("exists already", where=str(target), cure="name another file, or pass --force")
    shutil.copyfile(source, target)
    messages.print(f"copied to {target}; run it with: lora-kit run {target}", markup=False, soft_wrap=True)


@app.command("schema")
def schema_command(
    *, markdown: Annotated[bool, typer.Option("--markdown", help="Write tables for people.")] = False
) -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from lora_kit.recipe.reference import json_schema, reference_markdown

    if markdown:
        console.out(reference_markdown().rstrip("\n"), highlight=False)
    else:
        emit_json(json_schema())
