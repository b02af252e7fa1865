"""Training steps with common beginnings computed once, against the same steps without.

Both sides take turns, window by window, on one model in one process: same rows, same adapter, LoRA on all
linear layers, float32. ``alpaca``: the rows as they are, which share the template's header at most.
``context``: every row behind the same context of --context tokens, its own part cut to --own tokens (its
last ones, so that targets stay). The ratio within a pair counts, not the seconds.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_data import BASE

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT.parent / "shared" / "data" / "train" / "alpaca_en_demo.json"
Figures = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Run the measurement, print a table, and write the figures if asked to."""
    parser = argparse.ArgumentParser(prog="scripts/bench prefixes", description=__doc__)
    parser.add_argument("--rows", type=Path, default=ROWS, help="Alpaca rows as JSON")
    parser.add_argument("--count", type=int, default=16, help="how many of them (16)")
    parser.add_argument("--batch-size", type=int, default=8, help="rows in a step (8)")
    parser.add_argument("--tokens", type=int, default=1024, help="as train.micro_batch_tokens (1024)")
    parser.add_argument("--context", type=int, default=600, help="tokens of the shared context (600)")
    parser.add_argument("--own", type=int, default=100, help="most tokens of a row behind a context (100)")
    parser.add_argument("--base", default=BASE, help="a folder, hub id or package:...")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    figures = measure(options)
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    return 0


def measure(options: argparse.Namespace) -> Figures:
    """Open the base once, then time every window both ways."""
    from lora_kit.data.open_encoder import open_encoder
    from lora_kit.model.base import find_base
    from lora_kit.recipe.schema import BaseSpec

    files = find_base(BaseSpec(model=options.base))
    alpaca = encoded(files.folder, options)
    raw = json.loads(options.rows.read_text("utf-8"))
    encoder = open_encoder(files.folder, "model", None)
    tokenizer = encoder.tokenizer.hf
    text = [token for r in raw[-40:] for token in tokenizer.encode(r["output"], add_special_tokens=False)]
    sets = {"alpaca": alpaca, "context": _behind(text[: options.context], alpaca, options.own)}
    step = stepper(files).step
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "options": {name: str(value) for name, value in vars(options).items()},
        "sets": {name: _compare(step, rows, options) for name, rows in sets.items()},
    }


def _behind(context: Sequence[int], rows: Sequence[Any], own: int) -> list[Any]:
    """Put a context that isn't learned before the last tokens of each row."""
    from dataclasses import replace

    return [
        replace(
            row,
            input_ids=(*context, *row.input_ids[-own:]),
            trained=(*[False] * len(context), *row.trained[-own:]),
        )
        for row in rows
    ]


def encoded(folder: Path, options: argparse.Namespace) -> list[Any]:
    """Return the first rows as training has them."""
    from lora_kit.data.open_encoder import open_encoder
    from lora_kit.data.types import Conversation, Message

    encoder = open_encoder(folder, "model", None)
    rows = json.loads(options.rows.read_text("utf-8"))[: options.count]
    turns = [
        (Message("user", row["instruction"], row.get("input", "")), Message("assistant", row["output"]))
        for row in rows
    ]
    return [encoder.encode(Conversation(turn, f"{options.rows.name}:{n}")) for n, turn in enumerate(turns, 1)]


def stepper(files: Any, method: str = "none") -> Any:  # noqa: ANN401
    """Load base, adapter and optimizer into what makes a step of micro-batches."""
    from lora_kit.model.adapter_inject import add_adapter
    from lora_kit.model.load import load_model
    from lora_kit.recipe.schema import LoraSpec, QuantizationSpec, TrainSpec
    from lora_kit.train.optim import build_optimizer, trainable_parameters
    from lora_kit.train.runtime import build_accelerator
    from lora_kit.train.step import Stepper

    model = load_model(files, dtype="float32", quantization=QuantizationSpec(method=method), device="cpu")
    adapted = add_adapter(model, LoraSpec(), files.family, seed=0)
    parameters = trainable_parameters(adapted)
    optimizer = build_optimizer(parameters, TrainSpec())
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # both sides compute the same loss at every step
    return Stepper(adapted, list(parameters.values()), optimizer, build_accelerator("cpu"), 1.0)


def _compare(step: Callable[[list[Any]], Any], rows: list[Any], options: argparse.Namespace) -> Figures:
    from lora_kit.data.collate import flatten, share
    from lora_kit.data.plan_batches import plan_micro_batches, plan_shared_micro_batches

    def plain(window: list[Any]) -> list[Any]:
        plan = plan_micro_batches([len(row.input_ids) for row in window], options.tokens, padded=False)
        return [flatten([window[at] for at in part]) for part in plan]

    def shared(window: list[Any]) -> list[Any]:
        plan = plan_shared_micro_batches([row.input_ids for row in window], options.tokens)
        return [share([window[at] for at in part]) for part in plan]

    sides = {"off": plain, "auto": shared}
    size = options.batch_size
    windows = [rows[start : start + size] for start in range(0, len(rows), size)]
    step(shared(windows[0][:2])), step(plain(windows[0][:2]))  # warm up
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    losses: dict[str, list[float]] = {side: [] for side in sides}
    tokens = saved = 0
    for number, window in enumerate(windows):
        for side in sides if number % 2 == 0 else reversed(sides):
            began = time.perf_counter()
            result = step(sides[side](window))
            seconds[side].append(time.perf_counter() - began)
            losses[side].append(result.loss)
        tokens += result.total_tokens
        saved += sum(batch.shared_tokens for batch in shared(window))
    ratios = [off / on for off, on in zip(seconds["off"], seconds["auto"], strict=True)]
    return {
        "tokens": tokens,
        "saved_share": saved / tokens,
        "seconds": seconds,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "loss_difference": max(abs(a - b) / a for a, b in zip(*losses.values(), strict=True)),
    }


def table(figures: Figures) -> str:
    """Write the figures for people."""
    lines = [
        f"{figures['machine']}",
        f"{'rows':10}{'tokens':>8}{'saved':>8}{'off tok/s':>11}{'auto tok/s':>12}{'ratio':>7}  loss apart",
    ]
    for name, found in figures["sets"].items():
        speeds = [found["tokens"] / sum(found["seconds"][side]) for side in ("off", "auto")]
        lines.append(
            f"{name:10}{found['tokens']:>8,}{found['saved_share']:>8.1%}{speeds[0]:>11.1f}{speeds[1]:>12.1f}"
            f"{found['ratio']:>7.2f}  {found['loss_difference']:.1e}"
        )
    return "\n".join(lines)
