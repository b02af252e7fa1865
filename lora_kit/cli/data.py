"""`lora-kit data`: rows before training, counted and checked, and looked at token by token."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_kit.cli.console import console, emit_json

if TYPE_CHECKING:
    from lora_kit.cli.progress import RichObserver
    from lora_kit.data.encode import Encoder
    from lora_kit.recipe.schema import BaseSpec, Recipe

FEW_ROWS = 5
app = typer.Typer(
    help="Rows before training: counted, checked, looked at token by token.", no_args_is_help=True
)
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as data.limit=100.")
]
Outside = Annotated[
    list[Path] | None,
    typer.Option("--allow-outside", help="Directory that the recipe's paths may lead into."),
]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


@app.command("check")
def check_command(
    target: Annotated[str, typer.Argument(metavar="RECIPE|FILE", help="A recipe, a run, or a file of rows.")],
    overrides: Overrides = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help="Data format of a file of rows.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Count a file's tokens with this base's tokenizer.")
    ] = None,
    template: Annotated[str, typer.Option("--template", help="Template of a file, with --base.")] = "model",
    allow_outside: Outside = None,
    *,
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", help="Look for its items in the rows; else for the recipe's suites'."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Account for every row: used, dropped and why, duplicates, lengths. A file's tokens need --base."""
    from lora_kit.cli.progress import observing
    from lora_kit.cli.show_data import show_survey
    from lora_kit.data.survey import file_spec, names_rows, survey
    from lora_kit.harness.suite_texts import suite_texts
    from lora_kit.recipe.schema import BaseSpec

    with observing() as observer:
        if names_rows(target):
            _refuse_overrides(overrides)
            spec = file_spec(Path(target), format_name)
            encoder = _encoder(BaseSpec(model=base), template, None, observer) if base else None
            suites = suite_texts(suite or ())
        else:
            recipe = _recipe(target, overrides, allow_outside)
            spec, encoder = recipe.data, _recipe_encoder(recipe, observer)
            suites = suite_texts(suite or recipe.evaluate.suites)
        report = survey(spec, encoder, suites=suites, on_progress=observer.progress if encoder else None)
    if as_json:
        emit_json(report)
    else:
        show_survey(report)


@app.command("preview")
def preview_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, a shipped recipe's name, or a run.")
    ],
    overrides: Overrides = None,
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="How many; 5, or all with --html.")
    ] = None,
    start: Annotated[int, typer.Option("--start", min=1, help="The first one, counted from 1.")] = 1,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write them as one page, all unless --rows is given.")
    ] = None,
    allow_outside: Outside = None,
    *,
    ids: Annotated[bool, typer.Option("--ids", help="Show every token with its id.")] = False,
    as_json: Json = False,
) -> None:
    """Show rows as the model will see them: what is trained, what is not, and the control tokens."""
    from lora_kit.cli.progress import observing
    from lora_kit.cli.show_data import preview_json, show_preview
    from lora_kit.report.microscope import open_microscope
    from lora_kit.report.microscope_page import write_microscope

    loaded = _recipe(recipe, overrides, allow_outside)
    with observing() as observer:
        encoder = _recipe_encoder(loaded, observer)
        microscope = open_microscope(loaded.data, encoder, on_progress=observer.progress)
    if html is not None:
        written = write_microscope(html, loaded.name, microscope, start=start, count=rows)
        if not as_json:
            console.print(
                f"page over {written:,} rows: {html}", markup=False, soft_wrap=True, highlight=False
            )
        else:
            emit_json({"page": str(html), "rows": written})
    elif as_json:
        emit_json(preview_json(microscope.view(start, rows or FEW_ROWS), ids=ids))
    else:
        show_preview(microscope.view(start, rows or FEW_ROWS), ids=ids)


def _recipe(name: str, overrides: list[str] | None, allow_outside: list[Path] | None) -> "Recipe":
    """Load a recipe, or the one of a run, whose absolute paths are trusted."""
    from lora_kit.recipe.load import load_recipe

    resolved = Path(name) / "recipe.yaml"
    if resolved.is_file():
        return load_recipe(resolved, overrides or (), allow_outside=[Path(resolved.absolute().anchor)])
    return load_recipe(name, overrides or (), allow_outside=allow_outside or ())


def _recipe_encoder(recipe: "Recipe", observer: "RichObserver") -> "Encoder":
    return _encoder(recipe.base, recipe.data.template, recipe.data.system, observer)


def _encoder(base: "BaseSpec", template: str, system: str | None, observer: "RichObserver") -> "Encoder":
    from lora_kit.data.open_encoder import open_encoder
    from lora_kit.model.base import find_base

    observer.phase(f"finding the base {base.model}")
    folder = find_base(base).folder
    observer.phase("reading and encoding the rows")
    return open_encoder(folder, template, system)


def _refuse_overrides(overrides: list[str] | None) -> None:
    from lora_kit.errors import RecipeError

    if overrides:
        raise RecipeError(
            "a file of rows has no keys", key=overrides[0], cure="write a recipe, and check that"
        )
