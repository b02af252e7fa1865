"""One run in the terminal, drawn again at each look; lines outside of a terminal."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.text import Text

from lora_kit.cli.console import console
from lora_kit.cli.show_runs import needs_letters, state_text, steps_text
from lora_kit.errors import DivergedError, IncompleteError
from lora_kit.report.runs.summary import RunSummary
from lora_kit.report.runs.text_plot import text_plot
from lora_kit.report.runs.watch import Moment
from lora_kit.report.wording import duration, number, size

Show = Callable[[Moment], Moment]


@contextmanager
def watching(*, as_json: bool) -> Iterator[Show]:
    """Yield what shows a moment and gives it back: a live view, or one line for each new step or state."""
    if as_json:
        yield _changes(lambda moment: console.out(json.dumps(moment.to_json()), highlight=False))
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:

            def redraw(moment: Moment) -> Moment:
                live.update(_view(moment), refresh=True)
                return moment

            yield redraw
    else:
        yield _changes(lambda moment: console.print(_line(moment), soft_wrap=True))


def _changes(write: Callable[[Moment], None]) -> Show:
    before: list[tuple[str, int]] = []

    def show(moment: Moment) -> Moment:
        now = (moment.summary.state, moment.summary.step)
        if [now] != before:
            before[:] = [now]
            write(moment)
        return moment

    return show


def ended(summary: RunSummary) -> None:
    """End with the exit code of how the run ended.

    Raises:
        DivergedError: It did.
        IncompleteError: It stopped before its end, or has not begun.
    """
    if summary.state == "diverged":
        raise DivergedError(
            f"diverged after step {summary.step}",
            where=str(summary.path),
            cure="the last good weights are in last_good; lower train.learning_rate",
        )
    if summary.state != "finished":
        raise IncompleteError(
            f"nobody is at work there: {summary.state} at step {steps_text(summary)}",
            where=str(summary.path),
            cure=f"go on with: lora-kit train {summary.path}",
        )


def _view(moment: Moment) -> Group:
    height = max(min(console.height - 8, 16), 4)
    plot = text_plot(
        moment.curves(), width=min(console.width, 110), height=height, letters=needs_letters(console)
    )
    head = Text.assemble((moment.summary.path.name, "bold"), "  ", state_text(moment.summary))
    nothing = [Text("no step yet: rows are read and the model is loaded", style="dim")]
    return Group(head, _figures(moment), Text(), *(plot or nothing))


def _line(moment: Moment) -> Text:
    return Text.assemble(moment.summary.state, "  ", _figures(moment))


def _figures(moment: Moment) -> Text:
    summary = moment.summary
    parts = [f"step {steps_text(summary)}"]
    told = (
        ("loss", summary.loss, number(summary.loss, 4)),
        ("held-out", summary.validation_loss, number(summary.validation_loss, 4)),
        ("", moment.tokens_per_second, f"{number(moment.tokens_per_second)} tokens/s"),
        ("", moment.seconds_left, f"{duration(moment.seconds_left)} left"),
        ("", moment.peak_memory_bytes, size(moment.peak_memory_bytes)),
    )
    parts += [f"{title} {text}".strip() for title, value, text in told if value is not None]
    return Text("   ".join(parts))
