"""`lora-kit run` and `lora-kit train`: from a recipe to an adapter, or to everything."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_kit.cli.console import console, emit_json, messages
from lora_kit.cli.importing import importing

if TYPE_CHECKING:
    from lora_kit.recipe.schema import Recipe

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, a shipped recipe's name, or a run.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as train.learning_rate=1e-4.")
]
RunPath = Annotated[Path | None, typer.Option("--run-dir", help="Default: runs/<name>-<fingerprint>.")]
Outside = Annotated[
    list[Path] | None,
    typer.Option("--allow-outside", help="Directory that the recipe's paths may lead into."),
]
Inexact = Annotated[
    bool,
    typer.Option(
        "--allow-inexact-resume", help="Go on with other versions, threads or hardware; marks the run."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


def train_command(
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: RunPath = None,
    allow_outside: Outside = None,
    *,
    allow_inexact_resume: Inexact = False,
    as_json: Json = False,
) -> None:
    """Train the adapter of a recipe; a run that was cut goes on from its newest valid checkpoint."""
    loaded, path = _begin(recipe, overrides, run_dir, allow_outside)
    with importing():
        from lora_kit.artifacts.run_dir import RunDir
        from lora_kit.audit.fresh import audit_run
        from lora_kit.cli.progress import observing
        from lora_kit.train.clock import Session, process_began
        from lora_kit.train.deadline_record import close_deadline
        from lora_kit.train_run import train_recipe

    finished, session = _is_finished(path), Session(process_began())
    with observing() as observer:
        state = train_recipe(loaded, path, observer, allow_inexact=allow_inexact_resume, session=session)
        if loaded.engine.audit == "on":
            audit_run(RunDir(path), observer)
    if not finished:
        _remember(loaded, path, ended=time.time())
    close_deadline(RunDir(path), session)
    if as_json:
        emit_json({"run": str(path), **state})
        return
    messages.print(f"{'already finished' if finished else 'finished'}: {path}", markup=False, soft_wrap=True)
    console.print(f"adapter: {path / 'adapter'}", markup=False, soft_wrap=True)


def run_command(
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: RunPath = None,
    allow_outside: Outside = None,
    *,
    allow_inexact_resume: Inexact = False,
    as_json: Json = False,
) -> None:
    """Do everything: train, evaluate base and adapter, merge, report. What is finished is not done again."""
    loaded, path = _begin(recipe, overrides, run_dir, allow_outside)
    with importing():
        from lora_kit import pipeline
        from lora_kit.cli.progress import observing
        from lora_kit.cli.show import show_results
        from lora_kit.train.clock import Session, process_began

    finished, session = _is_finished(path), Session(process_began())
    with observing() as told:
        outcome = pipeline.run_recipe(loaded, path, told, allow_inexact=allow_inexact_resume, session=session)
    if not finished:
        _remember(loaded, path)
    results = pipeline.read_results(path)
    if as_json:
        emit_json({**outcome, "evaluations": results})
        return
    for result in results.values():
        show_results(result)
    if outcome["nothing_to_do"]:
        messages.print("The run was finished already; nothing was done again.", markup=False)
    console.print(
        f"run:    {path}\nreport: {outcome['report']}\nchat:   lora-kit chat {path}",
        markup=False,
        soft_wrap=True,
    )


def load_run(
    name: str, overrides: list[str] | None, run_dir: Path | None, allow_outside: list[Path] | None
) -> tuple["Recipe", Path]:
    """Load a recipe, or the one of a run directory; and the directory to work in."""
    from lora_kit.errors import RecipeError
    from lora_kit.recipe.fingerprint import training_fingerprint
    from lora_kit.recipe.load import load_recipe, load_resolved

    if (Path(name) / "recipe.yaml").is_file():
        if overrides:
            raise RecipeError(
                "a run's recipe does not change",
                where=name,
                key=overrides[0],
                cure="start from the recipe file instead",
            )
        return load_resolved(Path(name) / "recipe.yaml"), run_dir or Path(name)
    recipe = load_recipe(name, overrides or (), allow_outside=allow_outside or ())
    return recipe, run_dir or Path("runs") / f"{recipe.name}-{training_fingerprint(recipe)[:8]}"


def _remember(recipe: "Recipe", path: Path, ended: float | None = None) -> None:
    """Let later plans learn from a run; not in training itself, for a replay is no run of its own."""
    from lora_kit.planning.remember import remember_run

    remember_run(recipe, path, ended=ended)


def _begin(
    name: str, overrides: list[str] | None, run_dir: Path | None, allow_outside: list[Path] | None
) -> tuple["Recipe", Path]:
    """As :func:`load_run`; a new run's rows are encoded while torch is imported, if a core is free."""
    from lora_kit.ahead import encode_ahead
    from lora_kit.artifacts.run_dir import RunDir
    from lora_kit.cli.threads import core_is_free

    recipe, path = load_run(name, overrides, run_dir, allow_outside)
    if not RunDir(path).state.is_file() and core_is_free():
        encode_ahead(recipe)
    return recipe, path


def _is_finished(path: Path) -> bool:
    from lora_kit.artifacts.run_dir import RunDir

    run = RunDir(path)
    return run.state.is_file() and run.read_state().get("status") == "finished"
