"""Where the run happens: Accelerate for device and processes, and what identifies the machine.

Gradient accumulation in Accelerate stays 1: the window of examples is ours, and
its one division by the trained tokens is in ``step.py``. The model is not wrapped
in DDP either; adapter gradients are small, so they are summed over the processes
once a step, which is exact for any split of the window.
"""

import resource
import sys
from importlib.metadata import version

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


def peak_memory_bytes() -> int:
    """Peak of this process: memory allocated on the GPU if it computes there, else resident set."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
