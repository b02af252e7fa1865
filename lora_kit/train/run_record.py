"""A file of a run that says how its steps are made; a run that goes on, or is audited, goes by it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lora_kit.artifacts.manifest import read_object
from lora_kit.errors import ModelError

CURE = "put it back as it was, or choose another --run-dir"
T = TypeVar("T")


def read_record(path: Path, parse: Callable[[dict[str, Any]], T | None]) -> T | None:
    """Read what a run has written; None if it has written none.

    Args:
        path: The file.
        parse: Makes the record of the file's content; gives None, or raises KeyError, TypeError, ValueError
            or OverflowError, for what a run does not write.

    Raises:
        ModelError: The file is damaged.
    """
    if not path.is_file():
        return None
    content = read_object(path)
    try:
        record = parse(content)
    except (KeyError, TypeError, ValueError, OverflowError):
        record = None
    if record is None:
        raise ModelError(
            "is not what a run writes: it was changed, or comes from another version of lora_kit",
            where=str(path),
            cure=CURE,
        )
    return record
