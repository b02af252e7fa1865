"""The command line: every command, and the one place where an error becomes a line and an exit code.

Nothing heavy is imported before a command needs it, so that ``--help`` answers at once.
"""

import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from lora_kit import __version__
from lora_kit.cli import (
    adapters,
    audit,
    chat,
    compare,
    data,
    doctor,
    evaluate,
    export,
    judge,
    merge,
    plan,
    recipes,
    report,
    reproduce,
    runs,
    suites,
    train,
    verify,
    watch,
)
from lora_kit.cli.console import report_error
from lora_kit.errors import InterruptedRunError, LoraKitError, MachineError, RecipeError

app = typer.Typer(
    name="lora-kit",
    help="Verified LoRA fine-tuning at home: one recipe in, a proven adapter out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("plan")(plan.plan_command)
app.command("run")(train.run_command)
app.command("train")(train.train_command)
app.command("evaluate")(evaluate.evaluate_command)
app.command("judge")(judge.judge_command)
app.command("compare")(compare.compare_command)
app.command("merge")(merge.merge_command)
app.command("export")(export.export_command)
app.command("report")(report.report_command)
app.command("chat")(chat.chat_command)
app.command("watch")(watch.watch_command)
app.command("audit")(audit.audit_command)
app.command("verify")(verify.verify_command)
app.command("reproduce")(reproduce.reproduce_command)
app.command("doctor")(doctor.doctor_command)
app.add_typer(adapters.app, name="adapters")
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.add_typer(runs.app, name="runs")
app.add_typer(suites.app, name="suites")


_INTERRUPTED = InterruptedRunError(
    "interrupted", signal_number=2, cure="what was committed is intact; run it again to go on"
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback form
    if wanted:
        typer.echo(f"lora_kit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    json_errors: Annotated[bool, typer.Option("--json-errors", help="Print errors as JSON objects.")] = False,
) -> None:
    """Options of every command; ``run`` reads the last two itself, so that they cover parse errors too."""


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code (the table is in errors.py).

    Args:
        argv: The arguments without the program's name.
    """
    debug = "--debug" in argv
    json_errors = "--json-errors" in argv
    words = [word for word in argv if word not in ("--debug", "--json-errors")]
    try:
        result = app(args=words, standalone_mode=False)
    except BaseException as error:
        known = _as_known(error)
        if known is None:
            raise
        if debug and not isinstance(error, typer.TyperException):
            traceback.print_exception(error)
        report_error(known, json_errors=json_errors)
        return known.exit_code
    if result == _INTERRUPTED.exit_code:  # typer makes this of a KeyboardInterrupt
        report_error(_INTERRUPTED, json_errors=json_errors)
    return result if isinstance(result, int) else 0


def _as_known(error: BaseException) -> LoraKitError | None:
    """Whatever was raised, as one of our errors; None for what must pass (SystemExit)."""
    if isinstance(error, LoraKitError):
        return error
    if isinstance(error, typer.Abort | KeyboardInterrupt):
        return _INTERRUPTED
    if isinstance(error, typer.TyperException):
        return RecipeError(error.format_message().rstrip("."), cure="see lora-kit --help")
    if isinstance(error, MemoryError):
        return MachineError(
            "out of memory", cure="lower train.micro_batch_tokens or data.max_tokens, or take a smaller base"
        )
    if isinstance(error, Exception):
        return _bug(error)
    return None


def _bug(error: Exception) -> LoraKitError:
    """A mistake of ours: the traceback goes to a file, the user gets its name."""
    cure = "please report it; show the traceback with --debug"
    with (
        suppress(OSError),  # a disk that is full, a folder that is not ours
        tempfile.NamedTemporaryFile(
            "w", prefix="lora_kit-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file,
    ):
        file.write(f"lora_kit {__version__}, Python {sys.version}\n")
        traceback.print_exception(error, file=file)
        cure = f"please report it with {Path(file.name)}, or show the traceback with --debug"
    return LoraKitError(f"internal error {type(error).__name__}: {error}", cure=cure)
