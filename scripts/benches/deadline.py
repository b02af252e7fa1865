"""`train.max_minutes` kept: whole commands of `lora-kit train`, from the start of the process to its exit.

Loading, both audits and saving count. With --busy a process that does nothing but compute takes one core
meanwhile. Ends with exit code 1 if a round is over its time, or leaves more than an eighth of it unused.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benches.figures import BASE, ROOT, Figures, finish, header, new_parser
from benches.plots import Panel

LEAST = 0.875
BUSY = "while True: pass"


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    parser = new_parser("deadline", __doc__)
    parser.add_argument("--recipe", default="quickstart", help="without its train.steps (quickstart)")
    parser.add_argument("--minutes", type=float, default=4.0, help="train.max_minutes (4)")
    parser.add_argument("--rounds", type=int, default=3, help="commands, one after the other (3)")
    parser.add_argument("--busy", action="store_true", help="keep one core busy meanwhile")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lora-kit-bench-") as folder, competing(wanted=options.busy):
        rounds = [one_round(options, Path(folder) / f"run-{number}") for number in range(options.rounds)]
    figures = {
        **header("torch", "transformers", "peft"),
        "recipe": options.recipe,
        "minutes": options.minutes,
        "busy": options.busy,
        "rounds": rounds,
    }
    finish(figures, options, table, panels)
    return int(not all(LEAST <= one["share"] <= 1.0 for one in rounds))


@contextmanager
def competing(*, wanted: bool) -> Iterator[None]:
    """Keep one core busy for the block, with this process's priority."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def one_round(options: argparse.Namespace, run: Path) -> Figures:
    """Time a command, and read what it says of its deadline."""
    settings = ["train.steps=null", f"train.max_minutes={options.minutes}"]
    if options.base != BASE:
        settings.append(f"base.model={options.base}")
    command = [sys.executable, "-m", "lora_kit", "train", options.recipe, *settings]
    log = run.with_suffix(".log")
    began = time.monotonic()
    with log.open("wb") as output:
        done = subprocess.run(
            [*command, "--run-dir", str(run), "--allow-outside", "/"],
            check=False,
            stdout=output,
            stderr=output,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(f"exit code {done.returncode}:\n{log.read_text('utf-8')}")
    record = json.loads((run / "deadline.json").read_text("utf-8"))
    rates = [json.loads(line)["learning_rate"] for line in (run / "metrics.jsonl").open(encoding="utf-8")]
    return {
        "seconds": seconds,
        "share": seconds / (60 * options.minutes),
        "told_seconds": record["used_seconds"],
        "steps": len(rates),
        "replans": len(record["decisions"]) - 1,
        "decisions": record["decisions"],
        "last_rate": rates[-1] / max(rates),
    }


def table(figures: Figures) -> str:
    """Write the figures for people."""
    load = "one core busy" if figures["busy"] else "nothing else"
    lines = [
        f"{figures['recipe']}, {figures['minutes']:g} minutes, {load}, {figures['machine']}",
        f"{'round':>5}{'minutes':>9}{'of them':>9}{'steps':>7}{'re-plans':>10}{'last rate':>11}",
    ]
    for number, one in enumerate(figures["rounds"], start=1):
        lines.append(
            f"{number:>5}{one['seconds'] / 60:>9.2f}{one['share']:>9.1%}{one['steps']:>7}"
            f"{one['replans']:>10}{one['last_rate']:>11.1%}"
        )
    return "\n".join(lines)


def panels(figures: Figures) -> list[Panel]:
    """Draw what was used."""
    return [Panel("share of the time", {"used": [one["share"] for one in figures["rounds"]]})]
