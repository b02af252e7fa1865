"""Does anything grow besides the time? Training on 1, 4 and 16 times the rows: tokens a second, peak memory.

Each is a whole `lora-kit train` in a process of its own (rows, plan, loop, checkpoints, adapter). The three
go through their epoch side by side, step by step in proportion, so that a machine that slows down slows all;
the first step of each is a warm-up. Rows are the first --count of the file, instruction and answer cut to
--words words (SmolLM2: some 60 tokens a row, 30 of them the template's), and numbered copies of these, so
that the rows of all three are equally long.
"""

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path

from benches.figures import ROWS, Figures, as_text, finish, header, new_parser
from benches.plots import Panel
from benches.processes import Side
from benches.real_run import found_base, write_recipe, write_tiny

TIMES = (1, 4, 16)
WITHIN = 0.10


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    parser = new_parser("scale", __doc__)
    parser.add_argument("rows", nargs="?", type=Path, default=ROWS, help="Alpaca rows as JSON")
    parser.add_argument("--count", type=int, default=32, help="rows at first (32)")
    parser.add_argument(
        "--words", type=int, default=12, help="words of an instruction and an answer, 0 for all (12)"
    )
    parser.add_argument("--batch", type=int, default=8, help="rows a step (8)")
    parser.add_argument("--micro", type=int, default=1024, help="train.micro_batch_tokens (1024)")
    parser.add_argument("--low", action="store_true", help="engine.memory: low")
    parser.add_argument("--tiny", action="store_true", help="two layers like the base's, random")
    options = parser.parse_args(arguments)
    if options.count < 2 * options.batch:
        parser.error("--count must be at least twice --batch: the first step is a warm-up")
    with tempfile.TemporaryDirectory(prefix="lora-kit-bench-") as folder:
        figures = measure(options, Path(folder))
    return finish(figures, options, table, panels)


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    """Let the three runs go on side by side, then judge."""
    base = found_base(options.base)
    if options.tiny:
        base = write_tiny(base, folder / "base")
    rows = json.loads(options.rows.read_text("utf-8"))[: options.count]
    first = math.ceil(len(rows) / options.batch)
    sides = {times: _start(options, rows, times, base, folder) for times in TIMES}
    steps: dict[int, list[Figures]] = {times: [] for times in TIMES}
    for _, times in in_proportion(first):
        steps[times].append(sides[times].step(len(steps[times])))
    found = [_summary(steps[times], sides[times].close(), len(rows) * times) for times in TIMES]
    speeds, peaks = ([one[key] for one in found] for key in ("tokens_per_second", "peak_bytes"))
    differences = {
        "speed_difference": max(abs(speed / speeds[0] - 1) for speed in speeds),
        "memory_difference": max(peak / peaks[0] - 1 for peak in peaks),
    }
    return {
        **header("torch", "transformers", "peft", "accelerate"),
        "options": as_text(options),
        "scale": found,
        **differences,
        "linear": differences["speed_difference"] <= WITHIN,
        "flat": differences["memory_difference"] <= WITHIN,
    }


def in_proportion(first: int) -> list[tuple[float, int]]:
    """(time, run) of each step, so that all runs begin and end together."""
    return sorted(
        ((number + 0.5) / (first * times), times) for times in TIMES for number in range(first * times)
    )


def copies(rows: list[Figures], times: int, words: int) -> list[Figures]:
    """Repeat short rows, each with the number of its copy, which is as long for all."""

    def cut(text: str) -> str:
        return " ".join(text.split()[:words]) if words else text

    return [
        {"instruction": f"{copy:03d} {cut(row['instruction'])}", "input": "", "output": cut(row["output"])}
        for copy in range(times)
        for row in rows
    ]


def _start(options: argparse.Namespace, rows: list[Figures], times: int, base: str, folder: Path) -> Side:
    path = folder / f"rows-{times}.json"
    path.write_text(json.dumps(copies(rows, times, options.words)), "utf-8")
    job = {"base": base, "rows": str(path), "limit": len(rows) * times, "batch": options.batch}
    job |= {"steps": math.ceil(len(rows) / options.batch) * times, "micro": options.micro, "low": options.low}
    return Side("benches.real_run", write_recipe(folder / f"run-{times}", job))


def _summary(steps: list[Figures], end: Figures, rows: int) -> Figures:
    warm = steps[1:]
    return {
        "rows": rows,
        "steps": len(steps),
        "tokens": sum(step["tokens"] for step in warm),
        "tokens_per_second": sum(s["tokens"] for s in warm) / sum(s["seconds"] for s in warm),
        "peak_bytes": end["peak_bytes"],
        "gemm_flops": statistics.median(step["gemm"] for step in warm),
        "other_seconds": end["other_seconds"],
    }


def table(figures: Figures) -> str:
    """Write the figures for people; speed also per product rate."""
    columns = f"{'rows':>8}{'steps':>7}{'tokens/s':>10}{'peak GB':>9}{'GFLOP/s':>9}{'tokens/GFLOP':>14}"
    lines = [figures["machine"], f"{columns}{'rest, s':>9}"]
    for one in figures["scale"]:
        each = one["tokens_per_second"] / one["gemm_flops"] * 1e9
        lines.append(
            f"{one['rows']:>8}{one['steps']:>7}{one['tokens_per_second']:>10.1f}"
            f"{one['peak_bytes'] / 1e9:>9.2f}{one['gemm_flops'] / 1e9:>9.1f}{each:>14.2f}"
            f"{one['other_seconds']:>9.1f}"
        )
    speed, memory = figures["speed_difference"], figures["memory_difference"]
    lines += [
        f"tokens/s differ by {speed:.1%} at most: {'linear' if figures['linear'] else 'NOT LINEAR'}",
        f"memory grows by {memory:.1%}: {'flat' if figures['flat'] else 'NOT FLAT'} (within {WITHIN:.0%})",
    ]
    return "\n".join(lines)


def panels(figures: Figures) -> list[Panel]:
    """Draw speed and memory over rows, with the band that they are to stay in."""
    found = figures["scale"]
    rows = [one["rows"] for one in found]
    speeds, peaks = [one["tokens_per_second"] for one in found], [one["peak_bytes"] / 1e9 for one in found]

    def over_rows(title: str, values: list[float]) -> Panel:
        band = (values[0] * (1 - WITHIN), values[0] * (1 + WITHIN))
        return Panel(title, {"lora_kit": values}, at=rows, below="rows", band=band, logarithmic="x")

    return [over_rows("tokens a second", speeds), over_rows("peak memory, GB", peaks)]
