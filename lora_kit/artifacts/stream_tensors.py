"""Write a safetensors file tensor by tensor, so that memory holds one of them and not a shard.

The layout is the safetensors format: eight bytes of header length (little endian),
a JSON header with dtype, shape and offsets of each tensor, then the data
(https://github.com/huggingface/safetensors#format).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class TensorPlan(NamedTuple):
    """A tensor that will be written.

    Args:
        dtype: Its type in the file.
        shape: Its shape.
        produce: Makes it, when its turn comes.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    produce: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()


def stream_tensors(path: Path, plans: Mapping[str, TensorPlan], metadata: Mapping[str, str]) -> None:
    """Write ``plans`` in their order.

    Args:
        path: The file to create.
        plans: Name to tensor plan.
        metadata: Text for the header's ``__metadata__``.

    Raises:
        OSError: The disk can't take it.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, plan in plans.items():
        header[name] = {
            "dtype": DTYPE_NAMES[plan.dtype],
            "shape": list(plan.shape),
            "data_offsets": [offset, offset + plan.size],
        }
        offset += plan.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, plan in plans.items():
            tensor = plan.produce().to(plan.dtype).contiguous()
            if tuple(tensor.shape) != plan.shape:
                raise AssertionError(f"{name}: planned {plan.shape}, produced {tuple(tensor.shape)}")
            file.write(tensor.flatten().view(torch.uint8).numpy().data)
