"""How long rows take from a file to encoded rows on disk, against the tokenizer alone on the same text.

The tokenizer's side gets the finished text of each row and does nothing but ``encode_batch_fast``, in
blocks of 1,000; reading is not timed. lora_kit's side is all of ``prepare_data``: read twice, format, checks,
near duplicates, split, template, ids, targets, file. Loading the tokenizer is timed on neither side.
"""

import argparse
import json
import random
import re
import statistics
import tempfile
from collections import Counter
from itertools import accumulate
from pathlib import Path

from benches.figures import ROOT, Figures, finish, header, new_parser
from benches.plots import Panel
from benches.processes import turn


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    parser = new_parser("data", __doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows to generate (100000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side takes its turn (3)")
    parser.add_argument("--template", default="model", help="as data.template of a recipe (model)")
    parser.add_argument(
        "--parallel", action="store_true", help="let the tokenizer use all cores, on both sides"
    )
    parser.add_argument(
        "--memory", action="store_true", help="lora_kit's side only, once: for its peak memory"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lora-kit-bench-") as folder:
        figures = measure(options, Path(folder))
    return finish(figures, options, table, panels)


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    """Generate rows, then let the sides take turns in processes of their own."""
    rows = folder / "rows.jsonl"
    write_rows(rows, options.rows)
    changes = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": str(options.parallel).lower()}

    def take_turn(side: str) -> Figures:
        job = {"side": side, "folder": str(folder), "base": options.base, "template": options.template}
        return turn("benches.data_sides", job, changes)

    take_turn("find")
    runs: dict[str, list[Figures]] = {side: [] for side in ("tokenizer", "lora_kit", "again")}
    if options.memory:
        sides, options.rounds = ["lora_kit", "again"], 1
    else:
        take_turn("render")
        sides = ["tokenizer", "lora_kit", "again"]
    for number in range(options.rounds):
        order = sides if number % 2 == 0 else [*sides[1:], *sides[:1]]
        for side in order:
            runs[side].append(take_turn(side))
    ratios = [
        ours["seconds"] / theirs["seconds"]
        for ours, theirs in zip(runs["lora_kit"], runs["tokenizer"], strict=False)
    ]
    return {
        **header("tokenizers", "transformers", "pyarrow", "numpy"),
        "rows": options.rows,
        "bytes": rows.stat().st_size,
        "parallel": options.parallel,
        "base": options.base,
        "template": options.template,
        "runs": runs,
        "ratios": ratios,
        "ratio": statistics.median(ratios) if ratios else None,
    }


def table(figures: Figures) -> str:
    """Write the figures for people: medians, and the ratio of the turns."""
    names = {"tokenizer": "the tokenizer alone", "lora_kit": "prepare_data", "again": "prepare_data, cached"}
    size = f"{figures['rows']:,} rows, {figures['bytes'] / 1e6:,.0f} MB"
    lines = [
        f"{size}, template {figures['template']}, {figures['machine']}",
        f"{'':22}{'seconds':>10}{'CPU s':>10}{'tokens':>14}{'tokens/s':>12}{'peak MB':>9}",
    ]
    for side, runs in figures["runs"].items():
        if runs:
            seconds = statistics.median(run["seconds"] for run in runs)
            peak = max(run["peak_bytes"] for run in runs) / 1e6
            tokens = runs[0]["tokens"]
            cpu = statistics.median(run["cpu_seconds"] for run in runs)
            speed = f"{tokens:>14,}{tokens / seconds:>12,.0f}"
            lines.append(f"{names[side]:22}{seconds:>10.2f}{cpu:>10.2f}{speed}{peak:>9,.0f}")
    if figures["ratios"]:
        each = ", ".join(f"{ratio:.2f}" for ratio in figures["ratios"])
        lines.append(f"prepare_data / the tokenizer alone: {figures['ratio']:.2f} (turn by turn: {each})")
    return "\n".join(lines)


def panels(figures: Figures) -> list[Panel]:
    """Draw speed and memory of each side."""
    runs = {side: own for side, own in figures["runs"].items() if own}
    return [
        Panel("tokens a second", {s: [r["tokens"] / r["seconds"] for r in own] for s, own in runs.items()}),
        Panel("peak memory, MB", {s: [r["peak_bytes"] / 1e6 for r in own] for s, own in runs.items()}),
    ]


def write_rows(path: Path, count: int) -> None:
    """Write Alpaca-like rows: lengths like Alpaca's, words as frequent as in the sample rows of data/."""
    text = " ".join(file.read_text("utf-8") for file in sorted((ROOT / "data").glob("*.json*")))
    frequencies = Counter(re.findall(r"[A-Za-z][a-z'-]*[,;:]?|\d{1,4}", text))
    words, weights = list(frequencies), list(accumulate(frequencies.values()))
    chance = random.Random(0)  # noqa: S311 - the same rows each time

    def sentence(shortest: int, longest: int) -> str:
        length = chance.randint(shortest, longest)
        return " ".join(chance.choices(words, cum_weights=weights, k=length)).capitalize() + "."

    with path.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            sentences = 1 + min(int(chance.expovariate(1 / 7)), 60)
            row = {
                "instruction": sentence(6, 16),
                "input": sentence(8, 30) if chance.random() < 0.4 else "",
                "output": " ".join(sentence(6, 20) for _ in range(sentences)),
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
