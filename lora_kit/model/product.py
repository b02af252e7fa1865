"""x W^T by the quickest product that torch has for this layout on a CPU.

torch takes MKL for float32, which packs a (V, H) or (out, in) matrix anew for every call and reaches 80 to 95
% of oneDNN's speed on AVX2 (measured for 128 to 1024 rows: 5 to 15 % slower in the layers, 25 % at the head).
oneDNN's product is private in torch, where inductor calls it for the same purpose; without it everything is
torch's own. Its kernels take four rows at once: 969 rows run at 60 to 64 GFLOP/s where 968 and 972 run at 69,
so up to three rows of zeros are computed along and cut off.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

ONE_DNN = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
)
ROWS_AT_ONCE = 4
FEWEST_ROWS = 16  # below, the call costs more than it saves, and generation is left as it is


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + bias; without gradient.

    Args:
        x: Float ``(T, in)``.
        weight: ``(out, in)``, contiguous.
        bias: ``(out,)``.
    """
    suits = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and len(x) >= FEWEST_ROWS
    if ONE_DNN is None or not suits:
        return linear(x, weight, bias)
    rows = len(x)
    full = pad(x, (0, 0, 0, -rows % ROWS_AT_ONCE)) if rows % ROWS_AT_ONCE else x
    quick: Tensor = ONE_DNN(full, weight, bias, "none", [], "")[:rows]
    return quick
