"""Time and memory that `lora-kit plan` predicts, against runs of the same recipes that are then made.

Each variant of the quickstart is planned, then trained, each as a process: a plan, its run, the next plan.
Time is that of `lora-kit train` from its start to its end, audits included; memory is the peak resident set
of that process. "alone" is what a plan would say on a machine that it has never seen, "told" what this one
said, which earlier runs in this bench have corrected (the ledger begins empty).
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benches.figures import ROOT, Figures, as_text, finish, header, new_parser
from benches.plots import Panel

TIME_ERROR, MEMORY_ERROR = 0.15, 0.10  # what the medians shall not exceed
LONG_SYSTEM = " ".join(
    f"Rule {number}: answer what is asked, in plain words, and say so when you are not sure."
    for number in range(1, 13)
)
VARIANTS: dict[str, list[str]] = {
    "a quarter of the rows": ["data.limit=84", "train.steps=10"],
    "rows of 350 tokens": [
        f'data.system="{LONG_SYSTEM}"',
        "engine.share_prefixes=off",
        "data.limit=100",
        "train.steps=4",
        "train.warmup_steps=1",
    ],
    "rank 64": ["lora.rank=64", "train.steps=9", "engine.audit=off"],
    "batch of 10": ["train.batch_size=10", "train.steps=5", "engine.audit=off"],
    "4-bit base": ["quantization.method=nf4", "train.steps=9"],
    "adapters in 8 layers": ["lora.layers=last-8", "train.steps=14", "engine.audit=off"],
    "128 tokens at once": ["train.micro_batch_tokens=128", "train.steps=9", "engine.audit=off"],
    "low memory": ["engine.memory=low", "train.steps=8"],
}


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    parser = new_parser("plan", __doc__)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), help="some variants instead of all")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lora-kit-bench-") as folder:
        figures = measure(options, Path(folder))
    return finish(figures, options, table, panels)


def measure(options: argparse.Namespace, home: Path) -> Figures:
    """Plan and run one variant after the other; the base is converted beforehand."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LORA_KIT_CACHE": str(home / "cache")}
    convert = (
        "import sys; from lora_kit.model.base import find_base; from lora_kit.recipe.schema import BaseSpec"
    )
    subprocess.run(
        [sys.executable, "-c", f"{convert}; find_base(BaseSpec(model=sys.argv[1]))", options.base],
        env=environment,
        check=True,
    )
    found = {}
    for number, name in enumerate(options.only or VARIANTS):
        asked = ["quickstart", f"base.model={options.base}", *VARIANTS[name]]
        plan = command(["plan", *asked, "--run-dir", f"run{number}", "--json"], home, environment)
        told = json.loads(plan["stdout"])
        run = command(["train", *asked, "--run-dir", f"run{number}"], home, environment)
        found[name] = {
            "plan_seconds": plan["seconds"],
            "told": {"seconds": told["seconds"]["likely"], "memory": told["memory"]["need"]["likely"]},
            "alone": {
                "seconds": told["uncorrected"]["seconds"],
                "memory": told["uncorrected"]["memory_bytes"],
            },
            "parts": told["parts"],
            "timed": told["timed"],
            "correction": told["correction"],
            "actual": {"seconds": run["seconds"], "memory": run["peak_bytes"]},
            "steps": steps_of(home / f"run{number}"),
            "audits": {} if "engine.audit=off" in asked else audits_of(home / f"run{number}"),
        }
        print(f"{name}: {row(found[name])}", file=sys.stderr, flush=True)
        if options.json:  # a long bench may be stopped
            options.json.write_text(json.dumps(found), "utf-8")
    medians = {
        which: {
            what: statistics.median(abs(error(one, which, what)) for one in found.values())
            for what in ("seconds", "memory")
        }
        for which in ("told", "alone")
    }
    return {**header("torch", "transformers", "peft"), "options": as_text(options), "variants": found} | {
        "median_errors": medians
    }


def command(arguments: list[str], home: Path, environment: dict[str, str]) -> Figures:
    """Run a command to its end; its seconds and its peak resident memory."""
    began = time.perf_counter()
    with (home / "out").open("w+") as out, (home / "err").open("w+") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "lora_kit", *arguments], cwd=home, env=environment, stdout=out, stderr=err
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_of(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        if process.returncode:
            err.seek(0)
            sys.exit(f"lora-kit {' '.join(arguments)}:\n{err.read()}")
        out.seek(0)
        return {"seconds": seconds, "peak_bytes": peak, "stdout": out.read()}


def peak_of(number: int) -> int:
    """Peak resident memory of a process so far, without that of the process that audits the adapter."""
    try:
        found = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{number}/status").read_text("ascii"))
    except OSError:
        found = []
    return int(found[0]) * 1024 if found else 0


def steps_of(run: Path) -> float:
    """Seconds of a run's steps."""
    return sum(
        json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()
    )


def audits_of(run: Path) -> dict[str, float]:
    """Seconds of a run's audits, as they tell themselves."""
    parts = json.loads((run / "audit.json").read_text("utf-8"))
    return {name: parts[name]["seconds"] for name in ("start", "end") if name in parts}


def error(one: Figures, which: str, what: str) -> float:
    """Relative error of what was predicted."""
    return one[which][what] / one["actual"][what] - 1


def row(one: Figures) -> str:
    """Write one variant."""
    cells = [f"{one['actual']['seconds']:7.1f} s"]
    cells += [
        f"{one[which]['seconds']:7.1f} {error(one, which, 'seconds'):+6.1%}" for which in ("alone", "told")
    ]
    cells += [f"{one['actual']['memory'] / 1e9:6.2f} GB"]
    cells += [
        f"{one[which]['memory'] / 1e9:6.2f} {error(one, which, 'memory'):+6.1%}"
        for which in ("alone", "told")
    ]
    return " ".join(cells)


def table(figures: Figures) -> str:
    """Write the figures for people."""
    medians = figures["median_errors"]
    lines = [
        figures["machine"],
        f"{'':24}{'actual':>9} {'alone':>14} {'told':>14} {'actual':>9} {'alone':>13} {'told':>13}",
        *(f"{name:24}{row(one)}" for name, one in figures["variants"].items()),
    ]
    for which, about in (("alone", "without earlier runs"), ("told", "as told")):
        time_error, memory_error = medians[which]["seconds"], medians[which]["memory"]
        lines.append(
            f"median error {about}: time {time_error:.1%} (at most {TIME_ERROR:.0%}), "
            f"memory {memory_error:.1%} (at most {MEMORY_ERROR:.0%})"
        )
    slowest = max(one["plan_seconds"] for one in figures["variants"].values())
    return "\n".join([*lines, f"a plan took at most {slowest:.0f} s"])


def panels(figures: Figures) -> list[Panel]:
    """Draw the errors."""
    variants = figures["variants"].values()
    return [
        Panel(
            f"error of {name}, %",
            {which: [100 * error(one, which, what) for one in variants] for which in ("alone", "told")},
            at=range(1, 1 + len(variants)),
            below="variant",
        )
        for name, what in (("time", "seconds"), ("memory", "memory"))
    ]
