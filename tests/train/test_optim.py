"""AdamW's state by name, in 32 and in 8 bits: saved as tensors, put back, and the next step is the same."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_kit.errors import MachineError, ModelError
from lora_kit.recipe.schema import TrainSpec
from lora_kit.train import optim
from lora_kit.train.optim import (
    build_optimizer,
    doubts_of_resume,
    eight_bit_adamw,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)

SPEC = TrainSpec(weight_decay=0.1)
SHAPES = {"small": (4, 8), "large": (96, 64)}  # bitsandbytes holds fewer than 4,096 numbers in 32 bits


def parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}


def make(bits: int, values: dict[str, nn.Parameter]) -> Any:
    if bits == 32:
        return build_optimizer(values, SPEC)
    return eight_bit_adamw(values.values(), SPEC, paged=False)


def go(optimizer: Any, values: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for value in values.values():
            value.grad = torch.randn(value.shape, generator=generator)
        set_learning_rate(optimizer, 0.01 / step)
        optimizer.step()


@pytest.mark.parametrize("bits", [32, 8])
def test_saved_and_put_back_goes_on_to_the_bit(tmp_path: Path, bits: int) -> None:
    unbroken = parameters()
    go(make(bits, unbroken), unbroken, range(1, 8))
    values = parameters()
    first = make(bits, values)
    go(first, values, range(1, 4))
    save_file(optimizer_tensors(first, values), tmp_path / "optimizer.safetensors")
    again = copy.deepcopy(values)
    second = make(bits, again)
    load_optimizer_tensors(second, again, load_file(tmp_path / "optimizer.safetensors"))
    go(second, again, range(4, 8))
    assert all(torch.equal(again[name], unbroken[name]) for name in unbroken)
    assert not torch.equal(again["large"], values["large"])


def test_eight_bits_are_bytes_and_follow_adamw() -> None:
    exact, packed = parameters(), parameters()
    optimizer = make(8, packed)
    go(make(32, exact), exact, range(1, 6))
    go(optimizer, packed, range(1, 6))
    found = optimizer_tensors(optimizer, packed)
    assert found["large:state1"].dtype == found["large:state2"].dtype == torch.uint8
    assert "small:absmax1" not in found
    moved = (exact["large"] - parameters()["large"]).norm()
    assert 0 < (exact["large"] - packed["large"]).norm() < 0.1 * moved


@pytest.mark.parametrize("bits", [32, 8])
def test_a_state_of_other_parameters_is_refused(bits: int) -> None:
    values = parameters()
    optimizer = make(bits, values)
    go(optimizer, values, range(1, 2))
    tensors: dict[str, Tensor] = optimizer_tensors(optimizer, values)
    del tensors["large:step"]
    with pytest.raises(ModelError, match=r"other parameters, first: large:step"):
        load_optimizer_tensors(make(bits, values), values, tensors)
    other = 8 if bits == 32 else 32
    with pytest.raises(ModelError, match="other parameters"):
        load_optimizer_tensors(make(other, values), values, optimizer_tensors(optimizer, values))


def test_pages_need_a_gpu() -> None:
    with pytest.raises(ModelError, match=r"engine\.optimizer: adamw-8bit-paged needs a GPU with CUDA"):
        build_optimizer(parameters(), SPEC, "adamw-8bit-paged")


def test_a_gpu_gets_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class OnGpu:
        device = torch.device("cuda")

    monkeypatch.setattr(optim, "eight_bit_adamw", lambda _, __, *, paged: asked.append(paged))
    build_optimizer({"a": OnGpu()}, SPEC, "adamw-8bit-paged")  # type: ignore[dict-item]
    assert asked == [True]


def test_a_resume_that_may_differ_has_to_be_allowed_and_is_marked() -> None:
    values = parameters()
    assert doubts_of_resume(make(32, values), allow_inexact=False) == ()
    with pytest.raises(MachineError, match=r"not shown to come back bit for bit.*--allow-inexact-resume"):
        doubts_of_resume(make(8, values), allow_inexact=False)
    assert doubts_of_resume(make(8, values), allow_inexact=True) == (optim.DOUBT,)
