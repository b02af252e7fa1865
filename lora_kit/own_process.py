"""Processes of our own: the same interpreter and package, and nothing that lies in the user's folder."""

import os
import sys
from pathlib import Path

_PLACE = Path(__file__).parents[1]


def own_command(module: str, *arguments: str) -> list[str]:
    """Return what runs a module of this package; no file beside the user's rows may stand for a module."""
    return [sys.executable, "-P", "-m", module, *arguments]


def own_environment(**changes: str) -> dict[str, str]:
    """Return this process's environment, with changes, in which the package is found installed or not."""
    path = os.pathsep.join(filter(None, (str(_PLACE), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **changes}
