"""K-quants (q4_k_m and others): llama.cpp's own quantizer makes them from a float16 file of ours.

Which tensor gets which type is its decision, so the plan of such a file is read from the file, and its
numbers are then checked as all others are. Rows that blocks of 256 don't divide get one of the old types.
Formats: ``block_q4_K`` ... in ``ggml-common.h`` of github.com/ggml-org/ggml. Their scales are searched for
the least square error, so that no tight bound holds; these are wide enough for a scale two steps off.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lora_kit.errors import MachineError, ModelError
from lora_kit.export.gguf.llama_cpp import is_installed
from lora_kit.export.gguf.plan import ExportPlan, PlannedTensor
from lora_kit.export.gguf.quantize import BY_CODE, Array, NumberType, rounded_by
from lora_kit.export.gguf.write import Progress, Value, write_gguf
from lora_kit.model.gguf_file import read_gguf
from lora_kit.own_process import own_command, own_environment

K_QUANTS = {"q4_k_m": 15, "q5_k_m": 17, "q6_k": 18}  # llama.cpp's numbers for files that are mostly of it
SOURCE = "f16"  # what the quantizer is given
INSTALL = "pip install 'lora-kit[llama]'"


def _not_ours(values: Array) -> Array:
    raise AssertionError(f"llama.cpp makes these, of {values.shape} too")


_K_TYPES = (
    NumberType("q4_k", 12, 15, 256, 144, _not_ours, rounded_by(0.3, 15)),
    NumberType("q5_k", 13, 17, 256, 176, _not_ours, rounded_by(0.15, 31)),
    NumberType("q6_k", 14, 18, 256, 210, _not_ours, rounded_by(0.1, 63)),
)
READABLE = BY_CODE | {kind.code: kind for kind in _K_TYPES}


def require_quantizer(quant: str | None) -> None:
    """Refuse a K-quant where llama-cpp-python isn't installed.

    Raises:
        MachineError: With the line that installs it.
    """
    if quant in K_QUANTS and not is_installed():
        raise MachineError(
            f"{quant} is made by llama.cpp's own quantizer, and llama-cpp-python is not installed",
            key="--quant",
            cure=f"{INSTALL} (it is built for some minutes), or take q4_0, q5_1 or q8_0",
        )


def write_k_quant(
    path: Path, plan: ExportPlan, metadata: Mapping[str, Value], quant: str, on_progress: Progress
) -> tuple[ExportPlan, dict[str, Value]]:
    """Write a float16 file beside, have llama.cpp quantize it, and remove it.

    Args:
        path: The file to create.
        plan: Of the float16 file.
        metadata: Of the float16 file.
        quant: One of ``K_QUANTS``.
        on_progress: Told of tensors done and all.

    Returns:
        Plan and metadata of the finished file.

    Raises:
        ModelError: A number is beyond float16, or llama.cpp can't quantize the file.
        MachineError: llama-cpp-python is not installed.
    """
    require_quantizer(quant)
    whole = path.with_suffix(".f16")
    try:
        write_gguf(whole, plan.architecture.name, metadata, plan.tensors, on_progress)
        _quantize(whole, path, K_QUANTS[quant])
    finally:
        whole.unlink(missing_ok=True)
    kinds = {name: READABLE.get(code) for name, (code, _) in read_gguf(path).kinds.items()}
    tensors = tuple(_as_written(tensor, kinds.get(tensor.name), path) for tensor in plan.tensors)
    changed = {"general.file_type": K_QUANTS[quant], "general.quantization_version": 2}
    return replace(plan, tensors=tensors, quant=quant), {**metadata, **changed}


def _as_written(tensor: PlannedTensor, kind: NumberType | None, path: Path) -> PlannedTensor:
    if kind is None:
        raise ModelError(f"llama.cpp left out '{tensor.name}', or gave it an unknown type", where=str(path))
    return replace(tensor, kind=kind)


def _quantize(whole: Path, path: Path, file_code: int) -> None:
    """In a process of its own: llama.cpp ends it over what it dislikes."""
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        own_command("lora_kit.export.gguf.llama_quantize", str(whole), str(path), str(file_code)),
        env=own_environment(),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not path.is_file():
        said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise ModelError(f"llama.cpp can't quantize it: {said[-1][:200]}", where=str(path))
