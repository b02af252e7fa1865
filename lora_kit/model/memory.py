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
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _KEEP_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, _KEEP_BYTES))


def return_freed_memory() -> None:
    """Hand what the C library has kept back to the system; only glibc keeps any."""
    if sys.platform.startswith("linux"):
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
