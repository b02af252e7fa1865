"""Time from `lora-kit train` to its first step, against a bare script that only opens the same base.

Both are whole processes, started by this one: the bare script imports torch and transformers and loads the
base in float32; lora_kit reads, checks and encodes 1,000 rows besides, opens its run directory, and puts an
adapter on. The base is converted beforehand. "fresh" has rows that were never seen, "again" the encoded
rows of the turn before. The first step begins where the first line of its log was written, less the seconds
that the line says the step took; the run is killed there. "no audit" is "again" with `engine.audit: off`, for
the audit before the first step computes rows, and writes, by itself.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benches.figures import ROOT, ROWS, Figures, finish, header, new_parser
from benches.plots import Panel

BARE = """
import sys
import torch
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
"""
SIDES = ("bare", "fresh", "again", "no audit")
WAIT_SECONDS = 600.0


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    parser = new_parser("startup", __doc__)
    parser.add_argument("--rows", type=Path, default=ROWS, help="Alpaca rows as JSON")
    parser.add_argument("--count", type=int, default=1000, help="how many of them (1000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side takes its turn (3)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lora-kit-bench-") as folder:
        figures = measure(options, Path(folder))
    return finish(figures, options, table, panels)


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    """Let the sides take turns; each round has rows of its own."""
    from lora_kit.model.base import find_base
    from lora_kit.recipe.schema import BaseSpec

    base = find_base(BaseSpec(model=options.base)).folder
    rows = json.loads(options.rows.read_text("utf-8"))[: options.count]
    runs: dict[str, list[Figures]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        home = folder / str(number)
        home.mkdir()
        write_recipe(home, base, rows, salt=f"{time.time_ns()}")
        runs["bare"].append(bare(base))
        runs["fresh"].append(first_step(home, "fresh"))
        runs["again"].append(first_step(home, "again"))
        runs["no audit"].append(first_step(home, "no audit", "engine.audit=off"))
    ratios = {
        side: [a["seconds"] / b["seconds"] for a, b in zip(runs[side], runs["bare"], strict=True)]
        for side in SIDES[1:]
    }
    return {
        **header("torch", "transformers", "peft"),
        "rows": len(rows),
        "base": options.base,
        "runs": runs,
        "ratios": ratios,
        "ratio": {side: statistics.median(each) for side, each in ratios.items()},
    }


def table(figures: Figures) -> str:
    """Write the figures for people."""
    names = {
        "bare": "torch, transformers, load",
        "fresh": "lora-kit train",
        "again": "the same, rows cached",
        "no audit": "that, without the audit",
    }
    lines = [
        f"{figures['rows']:,} rows, {figures['machine']}",
        f"{'':28}{'seconds':>9}{'CPU s':>9}{'ratio':>9}",
    ]
    for side, runs in figures["runs"].items():
        seconds, cpu = (statistics.median(run[name] for run in runs) for name in ("seconds", "cpu_seconds"))
        ratio = figures["ratio"].get(side, 1.0)
        lines.append(f"{names[side]:28}{seconds:>9.1f}{cpu:>9.1f}{ratio:>9.2f}")
    return "\n".join(lines)


def panels(figures: Figures) -> list[Panel]:
    """Draw the time of each side."""
    runs = figures["runs"].items()
    return [Panel("seconds to the first step", {side: [run["seconds"] for run in own] for side, own in runs})]


def write_recipe(home: Path, base: Path, rows: list[Figures], *, salt: str) -> None:
    """Write a recipe of one short step; ``salt`` makes the rows new to the cache."""
    changed = [{**row, "output": f"{row['output']} {salt}"} for row in rows]
    (home / "rows.json").write_text(json.dumps(changed), "utf-8")
    recipe = {
        "name": "startup",
        "base": {"model": str(base)},
        "data": {"train": "rows.json", "format": "alpaca", "validation_fraction": 0.0},
        "lora": {"rank": 16, "targets": "all-linear"},
        "train": {"steps": 1, "batch_size": 1, "keep": "last"},
        "evaluate": {"suites": []},
    }
    (home / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")


def bare(base: Path) -> Figures:
    """Time the bare script to its end."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", BARE, str(base)], check=True, stderr=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds, "cpu_seconds": cpu}


def first_step(home: Path, name: str, *settings: str) -> Figures:
    """Time `lora-kit train` to the beginning of its first step; the processor time is that up to its end."""
    log = home / name / "metrics.jsonl"
    command = [
        sys.executable,
        "-m",
        "lora_kit",
        "train",
        "recipe.yaml",
        *settings,
        "--run-dir",
        name,
        "--allow-outside",
        "/",
    ]
    before, began = os.times(), time.perf_counter()
    with (home / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=home, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        while not (log.is_file() and log.read_bytes().endswith(b"\n")):
            if process.poll() is not None or time.perf_counter() - began > WAIT_SECONDS:
                process.kill()
                sys.exit(f"no first step:\n{(home / f'{name}.log').read_text('utf-8')}")
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        process.kill()
        process.wait()
    after, record = os.times(), json.loads(log.read_text("utf-8").splitlines()[0])
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds - record["seconds"], "cpu_seconds": cpu}
