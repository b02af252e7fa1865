"""Number types of GGUF: blocks of 32 numbers with a scale, made with numpy alone.

Bit for bit what ``gguf.quants`` (llama.cpp's own Python reference) makes, but a whole chunk at a time
instead of sixteen rows. Formats: ``block_q4_0`` ... ``block_q8_0`` in ``ggml-common.h`` of
github.com/ggml-org/ggml; error bounds follow from them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
BLOCK = 32
_F32 = np.float32


@dataclass(frozen=True, slots=True)
class NumberType:
    """A type of numbers in a GGUF file.

    Args:
        name: As on the command line.
        code: ggml's number for it.
        file_code: llama.cpp's number for files that are mostly of it.
        block: Numbers in a block.
        block_bytes: Bytes of a block.
        pack: Float32 ``(rows, columns)`` to bytes ``(rows, columns / block * block_bytes)``; an OverflowError
            if a number or a scale is beyond float16.
        bound: Float32 blocks ``(n, block)`` to the largest error that rounding explains, ``(n, 1)`` or alike.
    """

    name: str
    code: int
    file_code: int
    block: int
    block_bytes: int
    pack: Callable[[Array], Array]
    bound: Callable[[Array], Array]

    def size(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this shape."""
        return int(np.prod(shape)) // self.block * self.block_bytes


def _bytes(values: Array) -> Array:
    return np.ascontiguousarray(values).view(np.uint8)


def _half(values: Array) -> Array:
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if np.isinf(rounded).any():
        raise OverflowError
    return rounded


def _blocks(values: Array) -> Array:
    return values.reshape(-1, BLOCK)


def _bf16(values: Array) -> Array:
    """Round to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=_F32).view(np.uint32)
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return _bytes((np.where(nan, bits | np.uint32(1 << 22), rounded) >> np.uint32(16)).astype(np.uint16))


def _inverse(scale: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.where(scale == 0, _F32(0), _F32(1) / scale)


def _signed(values: Array, steps: int) -> tuple[Array, Array]:
    """Scale by the number of largest size, so that it becomes -steps exactly; shift to 0 .. 2 steps - 1."""
    at = np.abs(values).argmax(axis=-1, keepdims=True)
    scale = np.take_along_axis(values, at, axis=-1) / _F32(-steps)
    levels = values * _inverse(scale)
    levels += _F32(steps + 0.5)
    return _half(scale), np.minimum(levels.astype(np.uint8), np.uint8(2 * steps - 1))


def _ranged(values: Array, steps: int) -> tuple[Array, Array]:
    """Scale the range of the block to 0 .. steps."""
    low = values.min(axis=-1, keepdims=True)
    scale = (values.max(axis=-1, keepdims=True) - low) / _F32(steps)
    levels = (values - low) * _inverse(scale)
    levels += _F32(0.5)
    head = np.concatenate([_half(scale), _half(low)], axis=-1)
    return head, np.minimum(levels.astype(np.uint8), np.uint8(steps))


def _nibbles(levels: Array) -> Array:
    """Put number j into the low and number j + 16 into the high half of byte j."""
    return (levels[:, : BLOCK // 2] & np.uint8(15)) | (levels[:, BLOCK // 2 :] << np.uint8(4))


def _fifth_bits(levels: Array) -> Array:
    return np.packbits(levels >> np.uint8(4), axis=-1, bitorder="little")


def _q8_0(values: Array) -> Array:
    blocks = _blocks(values)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / _F32(127)
    levels = blocks * _inverse(scale)
    # Away from zero at a half, as C's roundf; written as the reference does it, whose last bits it shares.
    size = np.abs(levels)
    whole = np.floor(size)
    whole += np.floor(_F32(2) * (size - whole))
    whole *= np.sign(levels)
    packed = [_bytes(_half(scale)), whole.astype(np.int8).view(np.uint8)]
    return np.concatenate(packed, axis=-1).reshape(len(values), -1)


def _pack_4(values: Array, quantize: Callable[[Array, int], tuple[Array, Array]], steps: int) -> Array:
    head, levels = quantize(_blocks(values), steps)
    return np.concatenate([_bytes(head), _nibbles(levels)], axis=-1).reshape(len(values), -1)


def _pack_5(values: Array, quantize: Callable[[Array, int], tuple[Array, Array]], steps: int) -> Array:
    head, levels = quantize(_blocks(values), steps)
    packed = [_bytes(head), _fifth_bits(levels), _nibbles(levels)]
    return np.concatenate(packed, axis=-1).reshape(len(values), -1)


def _largest(blocks: Array) -> Array:
    return np.abs(blocks).max(axis=-1, keepdims=True)


def _range(blocks: Array) -> Array:
    return blocks.max(axis=-1, keepdims=True) - blocks.min(axis=-1, keepdims=True)


def rounded_by(
    share: float, steps: int, size: Callable[[Array], Array] = _largest
) -> Callable[[Array], Array]:
    """Bound errors by a share of the block's size or range, and what rounding its scale and minimum adds."""

    def bound(blocks: Array) -> Array:
        smallest = _F32(6e-8 * (steps + 1))  # a step of float16's subnormal numbers, times the largest level
        return size(blocks) * _F32(share) + _largest(blocks) * _F32(1 / 900) + smallest

    return bound


def _ulp(bits: int, least: float) -> Callable[[Array], Array]:
    return lambda blocks: np.abs(blocks) * _F32(2.0**-bits) + _F32(least)


NUMBER_TYPES = {
    kind.name: kind
    for kind in (
        NumberType("f32", 0, 0, 1, 4, lambda values: _bytes(values.astype(_F32, copy=False)), _ulp(60, 0)),
        NumberType("f16", 1, 1, 1, 2, lambda values: _bytes(_half(values)), _ulp(11, 6e-8)),
        NumberType("bf16", 30, 32, 1, 2, _bf16, _ulp(8, 1e-38)),
        NumberType("q8_0", 8, 7, BLOCK, 34, _q8_0, rounded_by(0.5 / 127, 127)),
        NumberType("q4_0", 2, 2, BLOCK, 18, lambda v: _pack_4(v, _signed, 8), rounded_by(1 / 8, 8)),
        NumberType(
            "q4_1", 3, 3, BLOCK, 20, lambda v: _pack_4(v, _ranged, 15), rounded_by(0.5 / 15, 15, _range)
        ),
        NumberType("q5_0", 6, 8, BLOCK, 22, lambda v: _pack_5(v, _signed, 16), rounded_by(1 / 16, 16)),
        NumberType(
            "q5_1", 7, 9, BLOCK, 24, lambda v: _pack_5(v, _ranged, 31), rounded_by(0.5 / 31, 31, _range)
        ),
    )
}
BY_CODE = {kind.code: kind for kind in NUMBER_TYPES.values()}
