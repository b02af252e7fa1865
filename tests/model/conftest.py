"""Bases that are found and loaded once, and random examples."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit.data.types import Example
from lora_kit.model.base import BaseFiles, find_base
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, QuantizationSpec

DENSE = QuantizationSpec()


@pytest.fixture
def base_of() -> Callable[[Path], BaseFiles]:
    return lambda folder: find_base(BaseSpec(model=str(folder)))


@pytest.fixture
def open_model(base_of: Callable[[Path], BaseFiles]) -> Callable[..., Any]:
    """``open_model(folder, dtype="float64", method="none")`` gives the model."""

    def build(folder: Path, dtype: str = "float64", method: str = "none") -> Any:
        return load_model(
            base_of(folder), dtype=dtype, quantization=QuantizationSpec(method=method), device="cpu"
        )

    return build


def random_examples(count: int, seed: int, longest: int = 24) -> list[Example]:
    """Examples of uneven lengths, some of one token, some with a trained island in the middle."""
    draw = random.Random(seed)
    examples = []
    for number in range(count):
        length = draw.randint(1, longest)
        ids = tuple(draw.randrange(300) for _ in range(length))
        first = draw.randint(0, length)
        trained = tuple(t >= first or (t % 5 == 1 and draw.random() < 0.3) for t in range(length))
        examples.append(Example(ids, trained, f"rows.jsonl:{number + 1}", f"{number:064x}"))
    return examples


@pytest.fixture
def examples() -> Callable[..., list[Example]]:
    return random_examples
