"""Which exceptions are failed allocations, and what they leave behind."""

import pytest
import torch
from accelerate import Accelerator

from lora_kit.data.collate import MicroBatch, flatten
from lora_kit.data.types import Example
from lora_kit.train.out_of_memory import NoRoomError, compute_over, is_out_of_memory

CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError(CPU), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(12, "Cannot allocate memory"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_counts(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_torch_says_what_we_look_for() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 50)
    assert is_out_of_memory(error.value)


def batches(count: int) -> list[MicroBatch]:
    return [flatten([Example((1, 2, 3), (False, True, True), f"r:{n}", "")]) for n in range(count)]


def test_the_batch_that_failed_is_told_and_others_are_not_begun() -> None:
    begun = []

    def compute(batch: MicroBatch) -> torch.Tensor:
        begun.append(batch.origins[0])
        if batch.origins[0] == "r:1":
            raise RuntimeError(CPU)
        return torch.tensor(1.5)

    with pytest.raises(NoRoomError) as error:
        compute_over(batches(3), compute, Accelerator(cpu=True), shared_out=True)
    assert error.value.batch.origins == ("r:1",)
    assert error.value.__context__ is None  # which would keep every tensor of the failed attempt
    assert begun == ["r:0", "r:1"]


def test_other_errors_pass() -> None:
    def compute(_: MicroBatch) -> torch.Tensor:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        compute_over(batches(1), compute, Accelerator(cpu=True), shared_out=False)
