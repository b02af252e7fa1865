"""Libraries that only some people need: one line that says how to get one that is missing."""

from importlib import import_module
from typing import Any

from lora_kit.errors import MachineError


def import_extra(module: str, extra: str) -> Any:  # noqa: ANN401 - optional libraries come without types
    """Import a library of an extra.

    Args:
        module: What it is imported as.
        extra: Whose dependency it is (``pip install 'lora-kit[EXTRA]'``).

    Raises:
        MachineError: It is not installed, or can't be loaded here.
    """
    cure = f"pip install 'lora-kit[{extra}]'"
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MachineError(f"{error.name or module} is not installed", cure=cure) from None
    except (ImportError, OSError, RuntimeError) as error:  # a shared library that does not load
        first_line = str(error).strip().split("\n", 1)[0][:200]
        raise MachineError(f"{module} can't be loaded here ({first_line})", cure=cure) from error
