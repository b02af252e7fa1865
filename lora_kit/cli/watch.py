"""`lora-kit watch`: a run that is at work, seen from another terminal."""

import time
from typing import Annotated

import typer

from lora_kit.cli.console import emit_json
from lora_kit.cli.runs import RUNS, Folder


def watch_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or its name in --dir.")],
    folder: Folder = RUNS,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show how it is now, and end.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, max=3600, help="Seconds between two looks.")
    ] = 1.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON: with --once one document, else one line a change.")
    ] = False,
) -> None:
    """Watch a run until it ends: loss, speed, time left, memory. Ctrl-C stops watching, not the run."""
    from lora_kit.cli.show_watch import ended, watching
    from lora_kit.report.runs.summary import find_run
    from lora_kit.report.runs.watch import Watcher

    watcher = Watcher(find_run(run, folder))
    if once and as_json:
        emit_json(watcher.look().to_json())
        return
    try:
        with watching(as_json=as_json) as show:
            while not (show(moment := watcher.look()).is_over or once):
                time.sleep(every)
    except KeyboardInterrupt:
        return
    if not once:
        ended(moment.summary)
