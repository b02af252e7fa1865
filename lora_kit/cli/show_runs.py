"""Runs as tables and plots in the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from lora_kit.cli.console import console
from lora_kit.report.runs.compare import RunComparison, RunFigures
from lora_kit.report.runs.summary import RunSummary
from lora_kit.report.runs.text_plot import Curve, text_plot
from lora_kit.report.wording import duration, number, size

STYLES = {
    "running": "green",
    "finished": "",
    "cut": "yellow",
    "diverged": "red",
    "damaged": "red",
    "created": "dim",
}


def show_runs(found: Sequence[tuple[RunSummary, int]]) -> None:
    """List runs, each with the size of its files in bytes."""
    longest = max(len(summary.path.name) for summary, _ in found)
    name = Column("run", no_wrap=True, min_width=min(longest, 60), overflow="fold")  # to be copied
    figures = [Column(title, justify="right") for title in ("step", "loss", "held-out", "age", "size")]
    table = Table(name, "state", *figures, box=None, pad_edge=False)
    for summary, bytes_ in found:
        table.add_row(
            Text(summary.path.name),
            state_text(summary),
            steps_text(summary),
            number(summary.loss, 3),
            number(summary.validation_loss, 3),
            age_text(summary.age),
            size(bytes_),
        )
    console.print(table)


def state_text(summary: RunSummary) -> Text:
    """The state, with the process that is at work."""
    who = f" (process {summary.owner.pid})" if summary.state == "running" and summary.owner else ""
    return Text(summary.state + who, style=STYLES[summary.state])


def steps_text(summary: RunSummary) -> str:
    """Such as ``120/400``; ``?`` for what is not known yet."""
    return f"{summary.step}/{summary.steps if summary.steps is not None else '?'}"


def age_text(seconds: float) -> str:
    """Time since the last sign of life, roughly."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def show_comparison(comparison: RunComparison) -> None:
    """What differs, figures, losses and curves."""
    labels = [run.label for run in comparison.runs]
    for note in comparison.notes:
        console.print(note, markup=False, style="yellow", soft_wrap=True)
    if comparison.differences:
        table = _table("recipe", labels)
        for key, values in comparison.differences.items():
            table.add_row(Text(key), *(Text(_value(value)) for value in values))
        console.print(table)
    elif not comparison.notes:
        console.print("The recipes are equal.", markup=False)
    table = _table("figures", labels)
    for title, cells in _figures(comparison.runs):
        table.add_row(title, *cells)
    console.print(table)
    table = _table("loss at step", labels)
    for step, losses in comparison.losses:
        table.add_row(str(step), *(number(loss, 3) for loss in losses))
    console.print(table)
    print_plot([*comparison.curves, *(curve for curve in comparison.validations if curve.points)])


def print_plot(curves: Sequence[Curve], on: Console = console) -> None:
    """Draw curves as wide as the terminal, with letters where it has no colours."""
    for line in text_plot(curves, width=min(on.width, 100), letters=needs_letters(on)):
        on.print(line, no_wrap=True, overflow="crop")


def needs_letters(on: Console) -> bool:
    """Whether curves can't be told by their colours, or dots not be shown."""
    return not on.is_terminal or on.no_color or not on.encoding.lower().startswith("utf")


def _table(title: str, labels: Sequence[str]) -> Table:
    columns = [Column(label, justify="right", overflow="fold") for label in labels]
    return Table(Column(title, no_wrap=True), *columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _figures(runs: Sequence[RunFigures]) -> list[tuple[str, list[str]]]:
    return [
        ("state", [run.summary.state for run in runs]),
        ("steps", [steps_text(run.summary) for run in runs]),
        ("kept step", [number(run.kept_step) for run in runs]),
        ("loss, last tenth", [number(run.mean_loss, 4) for run in runs]),
        ("held-out loss", [number(run.summary.validation_loss, 4) for run in runs]),
        ("trained tokens", [number(run.trained_tokens) for run in runs]),
        ("time in steps", [duration(run.seconds) for run in runs]),
        ("tokens/s", [number(run.tokens_per_second) for run in runs]),
        ("peak memory", [size(run.peak_memory_bytes) for run in runs]),
    ]


def _value(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
