"""Greedy answers to real prompts: lora_kit's decoding against transformers' generate(), tokens a second.

Both sides answer the same prompts with the same float32 weights, 32 rows at a time; generate() gets them in
batches of like length, padded on the left, which is its best case. Loading is timed on neither side, reading
the prompts is. Share of the limit = flops / GEMM rate of the same turn / seconds, with 2 flops a weight for
each token that is read or written, and 2 flops a weight of the head for each token that is written;
attention is not counted. Where tokens differ, float64 says by how much the two candidates do.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benches.figures import ROWS, Figures, finish, header, new_parser
from benches.generate_sides import SIDES
from benches.plots import Panel
from benches.processes import plain, turn


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    parser = new_parser("generate", __doc__)
    parser.add_argument("--rows", type=Path, default=ROWS, help="Alpaca rows as JSON")
    parser.add_argument("--prompts", type=int, default=64, help="how many of them (64)")
    parser.add_argument("--new-tokens", type=int, default=128, help="longest answer (128)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows in flight (32)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side takes its turn (2)")
    parser.add_argument(
        "--rank", type=int, default=0, help="put a random adapter on all linear layers (none)"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lora-kit-bench-") as folder:
        figures = measure(options, Path(folder))
    return finish(figures, options, table, panels)


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    """Let the sides take turns in processes of their own, then compare their tokens."""
    job = {name: plain(value) for name, value in vars(options).items()}

    def take_turn(side: str) -> Figures:
        return turn("benches.generate_sides", job | {"side": side, "folder": str(folder)})

    take_turn("find")
    runs: dict[str, list[Figures]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            runs[side].append(take_turn(side))
    answers = {side: json.loads((folder / f"{side}.json").read_text("utf-8")) for side in SIDES}
    differ = [n for n, pair in enumerate(zip(*answers.values(), strict=True)) if pair[0] != pair[1]]
    speeds = [[run["tokens"] / run["seconds"] for run in runs[side]] for side in SIDES]
    ratios = [ours / theirs for theirs, ours in zip(*speeds, strict=True)]
    return {
        **header("torch", "transformers", "peft"),
        **{name: job[name] for name in ("prompts", "new_tokens", "batch_size", "base", "rank")},
        "runs": runs,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "equal_prompts": len(answers["lora_kit"]) - len(differ),
        "differences": take_turn("gaps")["gaps"] if differ else [],
    }


def table(figures: Figures) -> str:
    """Write the figures for people."""
    asked = f"{figures['prompts']} prompts, up to {figures['new_tokens']} new tokens"
    lines = [
        f"{asked}, {figures['batch_size']} in flight, rank {figures['rank'] or 'none'}, {figures['machine']}",
        f"{'':16}{'seconds':>9}{'tokens':>9}{'tokens/s':>10}{'GFLOP/s':>9}{'of limit':>9}{'peak MB':>9}",
    ]
    for side, runs in figures["runs"].items():
        seconds, rate, share = (
            statistics.median(run[name] for run in runs) for name in ("seconds", "gemm", "share")
        )
        tokens, peak = runs[0]["tokens"], max(run["peak_bytes"] for run in runs) / 1e6
        speed = f"{seconds:>9.1f}{tokens:>9,}{tokens / seconds:>10.1f}"
        lines.append(f"{side:16}{speed}{rate / 1e9:>9.0f}{share:>9.0%}{peak:>9,.0f}")
    each = ", ".join(f"{ratio:.2f}" for ratio in figures["ratios"])
    lines.append(f"lora_kit / transformers: {figures['ratio']:.2f} (turn by turn: {each})")
    lines.append(f"the same tokens for {figures['equal_prompts']} of {figures['prompts']} prompts")
    lines += [
        f"  prompt {gap['prompt']} differs at token {gap['token']}: {gap['right']} is right in float64, "
        f"where the two are {gap['gap']:.1e} apart"
        for gap in figures["differences"]
    ]
    return "\n".join(lines)


def panels(figures: Figures) -> list[Panel]:
    """Draw speed and memory of each side."""
    runs = figures["runs"]
    speeds = {side: [run["tokens"] / run["seconds"] for run in own] for side, own in runs.items()}
    peaks = {side: [run["peak_bytes"] / 1e9 for run in own] for side, own in runs.items()}
    title = f"new tokens a second, {figures['batch_size']} rows in flight"
    return [Panel(title, speeds), Panel("peak memory, GB", peaks)]
