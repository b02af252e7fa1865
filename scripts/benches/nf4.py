"""Training steps on 4-bit weights (nf4, double quantization) against the same steps on float32 weights.

Both models are in one process and take turns, window by window: same rows, same adapter, LoRA on all linear
layers. Model memory = bytes of all parameters, buffers and quantization constants, adapter aside. The ratio
within a pair counts, not the seconds.
"""

import argparse
import statistics
import time
from typing import Any

from benches.figures import Figures, as_text, finish, header, new_parser
from benches.one_process import add_options, encoded, stepper
from benches.plots import Panel

SIDES = {"float32": "none", "nf4": "nf4"}


def main(arguments: list[str]) -> int:
    """Run the measurement; print, write and draw what it found."""
    parser = new_parser("nf4", __doc__)
    add_options(parser)
    options = parser.parse_args(arguments)
    return finish(measure(options), options, table, panels)


def measure(options: argparse.Namespace) -> Figures:
    """Load the base both ways, then time every window on both."""
    from lora_kit.data.collate import flatten
    from lora_kit.data.plan_batches import plan_micro_batches
    from lora_kit.model.base import find_base
    from lora_kit.recipe.schema import BaseSpec

    files = find_base(BaseSpec(model=options.base))
    rows = encoded(files.folder, options)
    steps = {side: stepper(files, method) for side, method in SIDES.items()}
    memory = {side: _model_bytes(step.model) for side, step in steps.items()}
    size = options.batch_size
    windows = [rows[start : start + size] for start in range(0, len(rows), size)]
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for step in steps.values():
        step.step([flatten(windows[0][:2])])  # warm up
    for number, window in enumerate(windows):
        plan = plan_micro_batches([len(row.input_ids) for row in window], options.tokens, padded=False)
        batches = [flatten([window[at] for at in part]) for part in plan]
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            began = time.perf_counter()
            steps[side].step(batches)
            seconds[side].append(time.perf_counter() - began)
    ratios = [slow / quick for quick, slow in zip(*seconds.values(), strict=True)]
    return {
        **header("torch", "transformers", "peft", "bitsandbytes"),
        "options": as_text(options),
        "tokens": sum(len(row.input_ids) for row in rows),
        "seconds": seconds,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "model_bytes": memory,
        "memory_share": memory["nf4"] / memory["float32"],
    }


def _model_bytes(model: Any) -> int:  # noqa: ANN401
    """Bytes of what is frozen, each storage once."""
    tensors = [*(p for p in model.parameters() if not p.requires_grad), *model.buffers()]
    for parameter in list(tensors):
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            tensors += [state.absmax, state.code]
            tensors += [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
    return sum({t.untyped_storage().data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def table(figures: Figures) -> str:
    """Write the figures for people."""
    lines = [figures["machine"], f"{'weights':10}{'tokens/s':>10}{'model MB':>10}"]
    for side in SIDES:
        speed = figures["tokens"] / sum(figures["seconds"][side])
        lines.append(f"{side:10}{speed:>10.1f}{figures['model_bytes'][side] / 1e6:>10.0f}")
    shares = f"step time {figures['ratio']:.2f}, model memory {figures['memory_share']:.0%}"
    lines.append(f"nf4 / float32: {shares}")
    return "\n".join(lines)


def panels(figures: Figures) -> list[Panel]:
    """Draw time and memory of both."""
    return [
        Panel("seconds a step", figures["seconds"]),
        Panel("model memory, MB", {side: [size / 1e6] for side, size in figures["model_bytes"].items()}),
    ]
