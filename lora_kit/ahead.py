"""Rows are encoded by a process of their own while this one imports torch, which takes as long.

The process knows no torch (transformers' tokenizers don't need it) and says nothing. What it made, this one
finds among the encoded rows that are kept; it waits while the other is at it, and makes itself, with all
messages, what the other could not.
"""

import atexit
import gc
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from lora_kit.model.standby import families_stand_by
from lora_kit.own_process import own_command, own_environment
from lora_kit.recipe.schema import DataSpec, Recipe

MOST_BYTES = 4 << 20  # of rows; more take longer than the imports, and should show how far they are
TEXT = frozenset({".json", ".jsonl", ".csv"})  # not packed
ABSENT = "torch"


def encode_ahead(recipe: Recipe) -> bool:
    """Begin to encode a recipe's rows, if they are few and on this machine, and torch is not there yet.

    Args:
        recipe: The recipe, its paths absolute.

    Returns:
        Whether a process was started; it ends by itself after some seconds, or with this one.
    """
    if ABSENT in sys.modules or _bytes(recipe.data) > MOST_BYTES:
        return False
    try:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            own_command("lora_kit.ahead"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=own_environment(HF_HUB_OFFLINE="1"),  # who fetches something shows how far it is
            start_new_session=True,  # Ctrl-C is the parent's affair
        )
    except OSError:
        return False
    atexit.register(_end, child)
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin:  # it ended at once; why, is found out by who encodes
        child.stdin.write(recipe.model_dump_json().encode())
    return True


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    child.wait()


def _bytes(data: DataSpec) -> float:
    """Size of the rows as text; infinite where that can't be told at once."""
    names = [data.train, *(more.train for more in data.mix), *([data.validation] if data.validation else [])]
    return sum(_size(Path(name)) for name in names)


def _size(path: Path) -> float:
    return float(path.stat().st_size) if path.suffix in TEXT and path.is_file() else float("inf")


def main() -> None:
    """Encode the rows of the recipe that stands on stdin."""
    gc.disable()  # as in cli/importing.py, and this process is short
    sys.modules[ABSENT] = None  # type: ignore[assignment]  # whoever asks is told that it is not installed
    families_stand_by()
    from lora_kit.harness.suite_texts import suite_texts
    from lora_kit.inputs import open_inputs
    from lora_kit.model.base import find_base

    recipe = Recipe.model_validate_json(sys.stdin.read())
    open_inputs(recipe, find_base(recipe.base), suites=suite_texts(recipe.evaluate.suites))


if __name__ == "__main__":
    main()
