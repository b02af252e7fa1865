"""Where the run happens: Accelerate for device and processes, and what identifies the machine.

Gradient accumulation in Accelerate stays 1: the window of examples is ours, and
its one division by the trained tokens is in ``step.py``. The model is not wrapped
in DDP either; adapter gradients are small, so they are summed over the processes
once a step, which is exact for any split of the window.
"""

import resource
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


def build_accelerator(device: str) -> Accelerator:
    """Make the process's Accelerator.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``; availability was checked when the model was placed.
    """
    return Accelerator(cpu=device == "cpu", gradient_accumulation_steps=1, mixed_precision="no")


def runtime_identity() -> dict[str, str]:
    """What must be equal for a resumed run to be bit-identical: versions, threads, CPU or GPU kind."""
    hardware = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    )
    return {
        "versions": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "threads": str(torch.get_num_threads()),
        "hardware": hardware,
    }


def wait_for_device() -> None:
    """Wait until a GPU has computed what it was given, so that a clock can be read."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory_bytes() -> int:
    """Peak of this process: memory allocated on the GPU if it computes there, else resident set."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_in_use() -> int:
    """What this process holds now, counted as ``peak_memory_bytes`` counts."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return int(psutil.Process().memory_info().rss)


def forget_peak() -> None:
    """Let the peak begin again at what is in use now; where the system can't (macOS), it stays.

    Linux resets a process's own high-water mark when 5 is written to clear_refs (proc(5)).
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def free_memory() -> int:
    """What this process could still take, in bytes: of the GPU, else of the machine or the container."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return int(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        limit, current = (int((group / f"memory.{name}").read_text("ascii")) for name in ("max", "current"))
        free = min(free, limit - current)
    return int(free)
