"""`lora-kit data`: rows before training, counted and checked, and looked at token by token."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_kit.cli.console import console, emit_json, messages

if TYPE_CHECKING:
    from lora_kit.cli.progress import RichObserver
    from lora_kit.data.encode import Encoder
    from lora_kit.recipe.schema import DataSpec, Recipe

FEW_ROWS = 5
app = typer.Typer(help="Rows before training: counted, checked, looked at token by token.", no_args_is_help=True)
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as data.limit=100.")]
Outside = Annotated[
    list[Path] | None, typer.Option("--allow-outside", help="Directory that the recipe's paths may lead into.")
]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


@app.command("check")
def check_command(
    target: Annotated[str, typer.Argument(metavar="RECIPE|FILE", help="A recipe, a run, or a file of rows.")],
    overrides: Overrides = None,
    format_name: Annotated[str | None, typer.Option("--format", help="Data format of a file of rows.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Count a file's tokens with this base's tokenizer.")] = None,
    template: Annotated[str, typer.Option("--template", help="Template of a file, with --base.")] = "model",
    allow_outside: Outside = None,
    *,
    as_json: Json = False,
) -> None:
    """Account for every row: used, dropped and why, duplicates, lengths. A file's tokens need --base."""
    from lora_kit.cli.progress import observing
    from lora_kit.cli.show_data import show_survey
    from lora_kit.data.survey import names_rows, survey

    with observing() as observer:
        if names_rows(target):
            spec, encoder = _file(target, overrides, format_name, base, template)
        else:
            spec, encoder = _recipe_data(_recipe(target, overrides, allow_outside), observer)
        report = survey(spec, encoder, on_progress=observer.progress if encoder else None)
    if as_json:
        emit_json(report)
    else:
        show_survey(report)


@app.command("preview")
def preview_command(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, a shipped recipe's name, or a run.")],
    overrides: Overrides = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="How many; 5, or all with --html.")] = None,
    start: Annotated[int, typer.Option("--start", min=1, help="The first one, counted from 1.")] = 1,
    html: Annotated[Path | None, typer.Option("--html", help="Write one page over all rows instead.")] = None,
    allow_outside: Outside = None,
    *,
    ids: Annotated[bool, typer.Option("--ids", help="Show tokens with their ids.")] = False,
    as_json: Json = False,
) -> None:
    """Show rows as the model will see them: what is trained, what is not, and the control tokens."""
    from lora_kit.cli.progress import observing
    from lora_kit.cli.show_data import preview_json, show_preview, write_preview

    loaded = _recipe(recipe, overrides, allow_outside)
    with observing() as observer:
        spec, encoder = _recipe_data(loaded, observer)
        preview = _preview(spec, encoder, observer)
        if html is not None:
            written = write_preview(html, loaded, preview, start=start, count=rows)
    if html is not None and not as_json:
        messages.print(f"{written['rows']:,} rows", markup=False, highlight=False)
        console.print(f"page: {html}", markup=False, soft_wrap=True, highlight=False)
    elif as_json:
        emit_json(written if html is not None else preview_json(...))
    else:
        show_preview()
