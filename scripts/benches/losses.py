"""The loss of each of the first steps, against a plain peft + transformers loop: are they the same run?

lora_kit's side is a whole `lora-kit train` (flattened micro-batches, fused functions, shared beginnings);
it says which rows each step had. The plain side makes a step on the same rows as one padded batch with
transformers' own loss: its own load of the base, peft's own layers, AdamW with equal settings (rate 2e-4, no
decay, norm clipped at 1), from the same first adapter. The encoded rows are shared. Exit code 1 if a loss
differs by more than --within of it.
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path

from benches.figures import Figures, as_text, finish, header, new_parser
from benches.plots import Panel
from benches.processes import Side, plain
from benches.real_run import found_base, write_recipe


def main(arguments: list[str]) -> int:
    """Run both; print, write and draw the losses; 1 if they differ."""
    parser = new_parser("losses", __doc__)
    parser.add_argument("rows", type=Path, help="rows in Alpaca's format")
    parser.add_argument("--steps", type=int, default=20, help="steps that are compared (20)")
    parser.add_argument("--batch", type=int, default=8, help="rows a step (8)")
    parser.add_argument("--limit", type=int, default=32, help="rows that are used, epoch by epoch (32)")
    parser.add_argument("--micro", type=int, default=1024, help="lora_kit's train.micro_batch_tokens (1024)")
    parser.add_argument("--low", action="store_true", help="lora_kit's engine.memory: low")
    parser.add_argument("--within", type=float, default=1e-4, help="largest relative difference (1e-4)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lora-kit-bench-") as folder:
        figures = measure(options, Path(folder))
    return finish(figures, options, table, panels) or int(not figures["equal"])


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    """Train, then make the same steps the plain way; one after the other, for the memory."""
    names = ("rows", "batch", "limit", "micro", "low", "steps")
    job = {name: plain(getattr(options, name)) for name in names} | {"base": found_base(options.base)}
    ours = _steps(Side("benches.real_run", write_recipe(folder / "run", job)), list(range(options.steps)))
    theirs = _steps(Side("benches.train_sides", job | {"side": "plain"}), [step["rows"] for step in ours])
    steps = [compared(number, *pair) for number, pair in enumerate(zip(ours, theirs, strict=True), 1)]
    largest = max(step["difference"] for step in steps)
    return {
        **header("torch", "transformers", "peft", "accelerate"),
        "options": as_text(options),
        "steps": steps,
        "largest_difference": largest,
        "equal": largest <= options.within,
    }


def _steps(side: Side, asked: list[int] | list[list[str]]) -> list[Figures]:
    """Make all steps of a side; tell who waits that it goes on."""
    found = []
    for number, what in enumerate(asked, 1):
        found.append(side.step(what))
        print(f"step {number}/{len(asked)}: loss {found[-1]['loss']:.6f}", file=sys.stderr, flush=True)
    side.close()
    return found


def compared(number: int, ours: Figures, theirs: Figures) -> Figures:
    """One step of both; a loss that is not a number is infinitely wrong."""
    difference = abs(ours["loss"] / theirs["loss"] - 1)
    return {
        "step": number,
        "tokens": theirs["tokens"],
        "lora_kit": ours["loss"],
        "plain": theirs["loss"],
        "difference": difference if math.isfinite(difference) else math.inf,
    }


def table(figures: Figures) -> str:
    """Write the figures for people."""
    lines = [figures["machine"], f"{'step':>5}{'tokens':>8}{'lora_kit':>12}{'plain':>12}{'differ by':>11}"]
    lines += [
        f"{s['step']:>5}{s['tokens']:>8,}{s['lora_kit']:>12.6f}{s['plain']:>12.6f}{s['difference']:>11.1e}"
        for s in figures["steps"]
    ]
    verdict = "equal" if figures["equal"] else "NOT EQUAL"
    largest, within = figures["largest_difference"], float(figures["options"]["within"])
    return "\n".join(
        [*lines, f"largest difference {largest:.1e} of the loss: {verdict} (within {within:.0e})"]
    )


def panels(figures: Figures) -> list[Panel]:
    """Draw both losses, and their difference."""
    steps = figures["steps"]
    at = [step["step"] for step in steps]
    return [
        Panel(
            "loss", {side: [s[side] for s in steps] for side in ("lora_kit", "plain")}, at=at, below="step"
        ),
        Panel("relative difference", {"": [s["difference"] for s in steps]}, at=at, below="step"),
    ]
