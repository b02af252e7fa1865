"""`lora-kit runs`: which runs there are, how they differ, and away with them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_kit.cli.console import console, emit_json, messages
from lora_kit.errors import RecipeError

if TYPE_CHECKING:
    from lora_kit.artifacts.run_dir import RunDir

app = typer.Typer(help="Runs on disk: list them, compare them, remove them.", invoke_without_command=True)
Folder = Annotated[Path, typer.Option("--dir", help="The folder that the runs are in.")]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
RUNS = Path("runs")


@app.callback()
def _list_by_default(context: typer.Context, folder: Folder = RUNS, *, as_json: Json = False) -> None:
    """Runs on disk: without a command, list them."""
    if context.invoked_subcommand is None:
        list_command(folder, as_json=as_json)


@app.command("list")
def list_command(folder: Folder = RUNS, *, as_json: Json = False) -> None:
    """List the runs of a folder: state, steps, losses, age, size."""
    from lora_kit.cli.show_runs import show_runs
    from lora_kit.report.runs.summary import bytes_of, runs_in, summarise

    found = [(summarise(run), bytes_of(run.path)) for run in runs_in(folder)]
    if as_json:
        emit_json([summary.to_json() | {"size_bytes": size} for summary, size in found])
    elif found:
        show_runs(found)
    else:
        messages.print(f"no runs in {folder}; start one with: lora-kit train RECIPE", markup=False)


@app.command("compare")
def compare_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Paths, or names in --dir.")],
    folder: Folder = RUNS,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write the curves into this file.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Compare runs: the recipe keys that differ, figures and losses side by side, the curves."""
    from lora_kit.artifacts.commit import write_file
    from lora_kit.cli.show_runs import show_comparison
    from lora_kit.report.runs.compare import compare_runs
    from lora_kit.report.runs.summary import find_run

    comparison = compare_runs([find_run(name, folder) for name in runs])
    if svg is not None:
        write_file(svg, comparison.to_svg().encode())
    if as_json:
        emit_json(comparison.to_json() | ({"svg": str(svg)} if svg else {}))
        return
    show_comparison(comparison)
    if svg is not None:
        console.print(f"curves: {svg}", markup=False, soft_wrap=True)


@app.command("remove")
def remove_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Paths, or names in --dir.")],
    folder: Folder = RUNS,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove runs for good; one that is at work is refused, and links are never followed."""
    from lora_kit.artifacts.run_remove import remove_run
    from lora_kit.report.runs.summary import bytes_of, find_run

    chosen = {run.path: run for run in (find_run(name, folder) for name in runs)}
    sizes = {path: bytes_of(path) for path in chosen}
    if not yes:
        _ask(list(chosen.values()), sum(sizes.values()))
    for run in chosen.values():
        remove_run(run)
    if as_json:
        emit_json([{"removed": str(path), "size_bytes": size} for path, size in sizes.items()])
    for path in chosen if not as_json else ():
        console.print(f"removed {path}", markup=False, soft_wrap=True)


def _ask(runs: "list[RunDir]", size_bytes: int) -> None:
    import sys

    from lora_kit.artifacts.disk import readable_bytes

    for run in runs:
        messages.print(f"  {run.path}", markup=False, highlight=False, soft_wrap=True)
    if not sys.stdin.isatty():
        raise RecipeError(
            "nobody is there to be asked", key="--yes", cure="pass --yes to remove without asking"
        )
    what = "this run" if len(runs) == 1 else f"these {len(runs)} runs"
    typer.confirm(f"Remove {what} ({readable_bytes(size_bytes)}) for good?", abort=True, err=True)
