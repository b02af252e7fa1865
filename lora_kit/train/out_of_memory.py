"""Failed allocations: which exceptions they are, and how one that can be healed is told."""

import gc
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from lora_kit.data.collate import MicroBatch

# What RuntimeErrors say that have no class of their own: c10/core/impl/alloc_cpu.cpp (POSIX, Windows), CUDA's
# runtime, cuBLAS.
TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class NoRoomError(Exception):
    """A micro-batch did not fit in memory, on this process or on another; nothing was updated.

    Args:
        batch: The micro-batch.
    """

    def __init__(self, batch: MicroBatch) -> None:
        super().__init__(f"no memory for {batch.input_ids.numel()} tokens")
        self.batch = batch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is a failed allocation of the GPU, of torch's CPU allocator or of Python."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):  # std::bad_alloc arrives as a MemoryError
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in TEXTS)


def release() -> None:
    """Give back what a failed attempt has left; call it when its exception is gone, with its frames."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def compute_over(
    micro_batches: Sequence[MicroBatch],
    compute: Callable[[MicroBatch], Tensor],
    accelerator: Accelerator,
    *,
    shared_out: bool,
) -> dict[int, Tensor]:
    """Compute micro-batches one after the other.

    Args:
        micro_batches: The same on all processes.
        compute: Gives a tensor of a few numbers.
        accelerator: Device and processes.
        shared_out: Whether each process computes a share, or all of them everything.

    Returns:
        What came out, by the micro-batch's index, float64 on the CPU.

    Raises:
        NoRoomError: An allocation failed, here or on another process.
    """
    stride = accelerator.num_processes if shared_out else 1
    first = accelerator.process_index if shared_out else 0
    found: dict[int, Tensor] = {}
    failed = -1
    for index in range(first, len(micro_batches), stride):
        try:
            found[index] = compute(micro_batches[index].to(accelerator.device)).detach().double().cpu()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failed = index
            break
    failed = _anywhere(failed, accelerator)
    if failed >= 0:  # outside of the except block, so that the exception does not keep the tensors alive
        raise NoRoomError(micro_batches[failed])
    return found


def _anywhere(failed: int, accelerator: Accelerator) -> int:
    """Agree on a micro-batch that failed on some process; -1 if none did."""
    if accelerator.num_processes == 1:
        return failed
    everyone: Tensor = accelerator.gather(torch.tensor([failed], device=accelerator.device))
    return int(everyone.max())
