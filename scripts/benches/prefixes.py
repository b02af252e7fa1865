"""Training steps with common beginnings computed once, against the same steps without.

Both sides take turns, window by window, on one model in one process: same rows, same adapter, LoRA on all
linear layers, float32. ``alpaca``: the rows as they are, which share the template's header at most.
``context``: every row behind the same context of --context tokens, its own part cut to --own tokens (its
last ones, so that targets stay). The ratio within a pair counts, not the seconds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benches.figures import Figures, as_text, finish, header, new_parser
from benches.one_process import add_options, encoded, stepper
from benches.plots import Panel


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    parser = new_parser("prefixes", __doc__)
    add_options(parser)
    parser.add_argument("--context", type=int, default=600, help="tokens of the shared context (600)")
    parser.add_argument("--own", type=int, default=100, help="most tokens of a row behind a context (100)")
    options = parser.parse_args(arguments)
    return finish(measure(options), options, table, panels)


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
        **header("torch", "transformers", "peft"),
        "options": as_text(options),
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


def panels(figures: Figures) -> list[Panel]:
    """Draw the time of each kind of rows."""
    return [Panel(f"{name}: seconds a step", found["seconds"]) for name, found in figures["sets"].items()]
