"""Our number types are llama.cpp's, bit for bit."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from lora_kit.export.gguf.quantize import NUMBER_TYPES


def numbers() -> np.ndarray:
    draw = np.random.default_rng(4)
    values = draw.standard_normal((96, 96)) * draw.choice([1e-6, 0.02, 1.0, 50.0], (96, 1))
    values[5], values[7], values[8] = 0, -1, 3
    values[6, :32], values[9, :32] = 3.0, np.arange(32) - 15.5
    return values.astype(np.float32)


@pytest.mark.parametrize("name", NUMBER_TYPES)
def test_equal_to_the_reference_bit_for_bit(name: str) -> None:
    kind, values = NUMBER_TYPES[name], numbers()
    wanted = quantize(values, GGMLQuantizationType(kind.code)).view(np.uint8).reshape(len(values), -1)
    packed = kind.pack(values)
    assert packed.size == kind.size(values.shape)
    assert np.array_equal(packed, wanted)


@pytest.mark.parametrize("name", NUMBER_TYPES)
def test_no_number_is_further_off_than_the_bound_and_some_come_near_it(name: str) -> None:
    kind, values = NUMBER_TYPES[name], numbers()
    packed = kind.pack(values)
    rows = packed.reshape(1, -1) if kind.block > 1 else packed.reshape(-1)
    found = dequantize(rows, GGMLQuantizationType(kind.code)).reshape(values.shape)
    error = np.abs(found - values).reshape(-1, max(1, kind.block))
    bound = kind.bound(values.reshape(error.shape))
    assert (error <= bound).all()
    assert name == "f32" or (error > bound / 2).any()


def test_nan_stays_nan_in_bfloat16() -> None:
    packed = NUMBER_TYPES["bf16"].pack(np.array([[np.nan, np.inf, 1.0, -2.0]], np.float32))
    assert packed.view(np.uint16).tolist()[0][1:] == [0x7F80, 0x3F80, 0xC000]
    assert packed.view(np.uint16)[0, 0] & 0x7FFF > 0x7F80
