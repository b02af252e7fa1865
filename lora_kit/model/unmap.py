"""Weights that are mapped from a file, brought into memory of the process's own, once.

transformers maps a safetensors file, and packing (``lora_ops``) copies most of it, so that for the whole run
the pages of the file would lie beside the copies: as much again as the model. Here all weights are packed or
copied layer by layer, and the pages behind each are given back before the next is read; the mapping goes with
its last tensor. Pages that the process has not written can be given back safely at any time, for the system
reads them again when they are touched (Linux, ``madvise(2)``, MADV_DONTNEED); others are left alone.
"""

import ctypes
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from lora_kit.model import fused_llama
from lora_kit.model.bare import bare_model
from lora_kit.model.lora_ops import Projections

MAPS = Path("/proc/self/maps")
Ranges = list[tuple[int, int]]


def own_weights(model: PreTrainedModel | PeftModel) -> None:
    """Pack and copy what is mapped from safetensors files; nothing else changes.

    Args:
        model: On a CPU, with or without an adapter; on other devices weights are copied anyway.
    """
    mapped = mapped_files(".safetensors")
    if not mapped or model.device.type != "cpu":
        return
    for part in _packed_together(model):
        before = [base.weight.data for base in part.bases]
        if all(_within(weight, mapped) for weight in before):
            part.packed(part.adapters())
            give_back(before, mapped)
    for parameter in model.parameters():
        if _within(parameter, mapped):
            before = [parameter.data]
            parameter.data = parameter.data.clone()
            give_back(before, mapped)


def mapped_files(suffix: str) -> Ranges:
    """Return the address ranges, first to last, at which files with this suffix are mapped."""
    try:
        lines = MAPS.read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        return []
    named = (line.split(maxsplit=5) for line in lines)
    found = (words[0].split("-") for words in named if len(words) == 6 and words[5].endswith(suffix))
    return [(int(first, 16), int(last, 16)) for first, last in found]


def give_back(tensors: Iterable[Tensor], mapped: Ranges) -> None:
    """Tell the system that the file's pages behind these tensors are not needed now."""
    for tensor in tensors:
        if _within(tensor, mapped):
            first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
            size = (tensor.data_ptr() + tensor.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
            if size > 0:
                ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


def _within(tensor: Tensor, mapped: Ranges) -> bool:
    start = tensor.data_ptr()
    return any(first <= start and start + tensor.nbytes <= last for first, last in mapped)


def _packed_together(model: PreTrainedModel | PeftModel) -> Iterator[Projections]:
    """Yield the products that a training step will pack, in the order of the layers."""
    base = bare_model(model)
    if fused_llama.fits(base):
        for layer in base.model.layers:
            yield from (part for part in fused_llama.parts_of(layer) if part.adapters())
        return
    for layer in base.modules():
        part = getattr(layer, "lora_kit_projections", None)
        if isinstance(part, Projections):
            yield part
