"""Training steps of lora_kit, TRL's SFTTrainer and a plain peft + Accelerate loop, taking turns in one run.

Same base, rows, template, initial adapter, batch and precision; each side is a process of its own that makes
one optimizer step when it is its turn. Before each step the side times torch's float32 product of 1024 x 1024
matrices. Share of the limit = real tokens a second x flops a token / median product rate, with flops a token
= 4 N_linear + (trained share) x 4 V H + layers x 7 L H (causal attention over rows of L tokens, forward and
backward): what a step can't do without when the base is frozen; LoRA itself, norms and the optimizer are not
in it.
"""

import argparse
import statistics
from importlib.util import find_spec
from pathlib import Path

from benches import scale
from benches.figures import INSTALL, Figures, as_text, finish, header, new_parser
from benches.plots import Panel
from benches.processes import Side, plain

MODULES = {"lora_kit": "train_sides", "trl": "train_trl", "plain": "train_sides"}
SIDES = tuple(MODULES)


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    options = parse(arguments, "train", __doc__)
    if options.scale:
        return scale.main(scale_arguments(options))
    return finish(compare(options), options, table, panels)


def parse(arguments: list[str], name: str, description: str | None) -> argparse.Namespace:
    """Read the options that train and memory share."""
    parser = new_parser(name, description)
    parser.add_argument("rows", type=Path, help="rows in Alpaca's format")
    parser.add_argument("--steps", type=int, default=4, help="steps that each side makes (4)")
    parser.add_argument("--batch", type=int, default=8, help="rows a step (8)")
    parser.add_argument("--limit", type=int, default=32, help="rows that are used, round and round (32)")
    parser.add_argument("--micro", type=int, default=1024, help="lora_kit's train.micro_batch_tokens (1024)")
    parser.add_argument("--low", action="store_true", help="lora_kit's engine.memory: low")
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES, help="who takes part")
    parser.add_argument("--scale", action="store_true", help="lora_kit alone at 1, 4 and 16 times the rows")
    options = parser.parse_args(arguments)
    if "trl" in options.sides and not options.scale and find_spec("trl") is None:
        parser.error(f"the side trl needs TRL: {INSTALL}, or --sides lora_kit plain")
    return options


def scale_arguments(options: argparse.Namespace) -> list[str]:
    """What `scripts/bench scale` is asked by --scale: whole rows, as many as --limit at first."""
    named = {"count": options.limit, "words": 0, "batch": options.batch, "micro": options.micro}
    named |= {"base": options.base, "json": options.json, "plot": options.plot}
    asked = [part for name, value in named.items() if value is not None for part in (f"--{name}", str(value))]
    return [str(options.rows), *asked, *(["--low"] if options.low else [])]


def job_of(options: argparse.Namespace) -> Figures:
    """What every side is told."""
    names = ("rows", "batch", "limit", "micro", "low", "base")
    return {name: plain(getattr(options, name)) for name in names}


def compare(options: argparse.Namespace) -> Figures:
    """Let the sides take turns, step by step, in changing order."""
    job = job_of(options)
    sides = {side: Side(f"benches.{MODULES[side]}", job | {"side": side}) for side in options.sides}
    steps: dict[str, list[Figures]] = {side: [] for side in sides}
    for number in range(options.steps + 1):  # the first is a warm-up: threads, memory, kernels
        names = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]
        for name in names:
            steps[name].append(sides[name].step(number))
    peaks = {name: side.close() for name, side in sides.items()}
    return summary(options, steps, peaks)


def summary(
    options: argparse.Namespace, steps: dict[str, list[Figures]], peaks: dict[str, Figures]
) -> Figures:
    """Medians, ratios, differences of the losses, share of the limit."""
    speeds = {
        name: statistics.median(step["tokens"] / step["seconds"] for step in own[1:])
        for name, own in steps.items()
    }
    gemm = statistics.median(step["gemm"] for own in steps.values() for step in own)
    figures: Figures = {
        **header("torch", "transformers", "peft", "accelerate", *({"trl"} & set(steps))),
        "options": as_text(options),
        "steps": steps,
        "tokens_per_second": speeds,
        "peak_bytes": {name: peak["peak_bytes"] for name, peak in peaks.items()},
        "gemm_flops": gemm,
    }
    if "lora_kit" in steps:
        own = steps["lora_kit"]
        figures["flops_a_token"] = own[0]["flops_a_token"]
        figures["share_of_limit"] = speeds["lora_kit"] * own[0]["flops_a_token"] / gemm
        for other in set(steps) - {"lora_kit"}:
            pairs = list(zip(own, steps[other], strict=True))
            figures[f"times_{other}"] = statistics.median(
                (a["tokens"] / a["seconds"]) / (b["tokens"] / b["seconds"]) for a, b in pairs[1:]
            )
            figures[f"loss_difference_{other}"] = max(abs(a["loss"] / b["loss"] - 1) for a, b in pairs)
    return figures


def table(figures: Figures) -> str:
    """Write the figures for people."""
    lines = [
        f"{figures['machine']}, float32 product {figures['gemm_flops'] / 1e9:.1f} GFLOP/s",
        f"{'':10}{'tokens/s':>10}{'peak GB':>9}{'ratio':>8}{'memory':>8}{'loss differs by':>17}",
    ]
    mine = figures["peak_bytes"].get("lora_kit")
    for name, speed in figures["tokens_per_second"].items():
        peak, ratio = figures["peak_bytes"][name], figures.get(f"times_{name}")
        line = f"{name:10}{speed:>10.1f}{peak / 1e9:>9.2f}"
        if ratio is not None:
            line += f"{ratio:>7.2f}x{mine / peak:>8.2f}{figures[f'loss_difference_{name}']:>17.1e}"
        lines.append(line)
    if "share_of_limit" in figures:
        lines.append(f"lora_kit reaches {figures['share_of_limit']:.0%} of what the product rate allows")
    return "\n".join(lines)


def panels(figures: Figures) -> list[Panel]:
    """Draw the speed of each round, and memory."""
    steps = figures["steps"]
    speeds = {name: [step["tokens"] / step["seconds"] for step in own[1:]] for name, own in steps.items()}
    rounds = range(1, 1 + len(next(iter(speeds.values()))))
    return [
        Panel("tokens a second", speeds, at=rounds, below="round"),
        Panel("peak memory, GB", {name: [peak / 1e9] for name, peak in figures["peak_bytes"].items()}),
    ]
