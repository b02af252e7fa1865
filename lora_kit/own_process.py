"""What this process may use, and how it starts others of ours; no file of the user stands for a module."""

import os
import sys
from pathlib import Path

_PLACE = Path(__file__).parents[1]


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_command(module: str, *arguments: str) -> list[str]:
    """Return what runs a module of this package; no file beside the user's rows may stand for a module."""
    return [sys.executable, "-P", "-m", module, *arguments]


def own_environment(**changes: str) -> dict[str, str]:
    """Return this process's environment, with changes, in which the package is found installed or not."""
    path = os.pathsep.join(filter(None, (str(_PLACE), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **changes}
