"""Imports of torch, transformers and peft in less time: some of it stands by, and no cycles are collected.

Hundreds of thousands of objects are made, none of them garbage; Python looks through them again and again.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lora_kit.model.standby import families_stand_by, stand_by


@contextmanager
def importing() -> Iterator[None]:
    """Collect nothing while the block imports torch; what is there then is never looked through again."""
    if "torch" in sys.modules:  # then what is frozen could be garbage of earlier work
        yield
        return
    stand_by()
    families_stand_by()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
