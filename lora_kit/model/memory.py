"""What a training step holds in memory, and what the C library keeps of what was given back.

``engine.memory: low`` computes each decoder layer again in the backward pass (arXiv 1604.06174), with the
same dropout masks, so that only the layers' inputs are kept. transformers has the switch; both its own layers
and ours obey it, in training mode alone.
"""

import ctypes
import sys
from contextlib import suppress

from peft import PeftModel
from transformers import PreTrainedModel

from lora_kit.model.bare import bare_model

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of glibc's malloc.h
_KEEP_BYTES = 1 << 30
_LARGE_BYTES = 1 << 20


def recompute_layers(model: PreTrainedModel | PeftModel) -> None:
    """Keep only the inputs of a model's decoder layers from the forward pass to the backward pass."""
    base = bare_model(model)
    base.activation_checkpointing_enable({"use_reentrant": False})


def keep_freed_memory() -> bool:
    """Tell glibc not to hand large blocks back to the system between two products.

    A fresh large block is mapped and zeroed page by page at its first use, which a step of a few hundred
    large tensors pays for again and again. Memory that is in use at the peak stays what it was.

    Returns:
        Whether the C library took it; False on anything but glibc.
    """
    return _mallopt(_MMAP_THRESHOLD, _KEEP_BYTES) and _mallopt(_TRIM_THRESHOLD, _KEEP_BYTES)


def map_large_blocks() -> bool:
    """Tell glibc to give every large block a mapping of its own, which goes when the block is freed.

    By itself it raises that limit to the largest block that was freed (up to 32 MB, ``mallopt(3)``), and
    weights that are read one after the other then lie in the heap, where a small block above keeps them: a
    merge's peak was 17 to 86 MB from one process to the next.

    Returns:
        Whether the C library took it; False on anything but glibc.
    """
    return _mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def _mallopt(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(option, value))
    except (AttributeError, OSError):
        return False


def return_freed_memory() -> None:
    """Hand what the C library has kept back to the system; only glibc keeps any."""
    if sys.platform.startswith("linux"):
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
