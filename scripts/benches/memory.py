"""Peak resident memory of training: lora_kit (with `engine.memory: low` too), TRL's SFTTrainer, a plain loop.

The same rows, batch, precision and steps as `scripts/bench train`; each in a process of its own, one after
the other. The peak is the process's high-water mark, loading included.
"""

import argparse

from benches.figures import Figures, finish, header
from benches.plots import Panel
from benches.processes import Side
from benches.train import MODULES, SIDES, job_of, parse


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    options = parse(arguments, "memory", __doc__)
    return finish(measure(options), options, table, panels)


def measure(options: argparse.Namespace) -> Figures:
    """Make the steps, side by side's end."""
    ways = {"lora_kit": {}, "lora_kit low": {"low": True}} if "lora_kit" in options.sides else {}
    ways |= {side: {} for side in SIDES if side in options.sides and side != "lora_kit"}
    peaks, speeds = {}, {}
    for name, changes in ways.items():
        kind = name.split()[0]
        side = Side(f"benches.{MODULES[kind]}", job_of(options) | changes | {"side": kind})
        steps = [side.step(number) for number in range(options.steps)]
        speeds[name] = sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps)
        peaks[name] = side.close()["peak_bytes"]
    libraries = ("torch", "transformers", "peft", "accelerate")
    return {**header(*libraries), "peak_bytes": peaks, "tokens_per_second": speeds}


def table(figures: Figures) -> str:
    """Write the figures for people."""
    least = figures["peak_bytes"].get("lora_kit")
    lines = [f"{'':14}{'peak GB':>9}{'lora_kit is 1 /':>17}{'tokens/s':>10}"]
    for name, peak in figures["peak_bytes"].items():
        ratio = f"{peak / least:>17.1f}" if least else f"{'':17}"
        lines.append(f"{name:14}{peak / 1e9:>9.2f}{ratio}{figures['tokens_per_second'][name]:>10.1f}")
    return "\n".join(lines)


def panels(figures: Figures) -> list[Panel]:
    """Draw the peak of each way."""
    return [Panel("peak memory, GB", {name: [peak / 1e9] for name, peak in figures["peak_bytes"].items()})]
