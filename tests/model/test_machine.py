"""Which way is chosen on which machine; no GPU is needed to know."""

import pytest
import torch

from lora_kit.model.machine import Machine, attention_way, autocast_type, fuses_adamw, machine_of

ALL = frozenset({"flash_attn", "triton", "varlen"})
TORCH = frozenset({"triton", "varlen"})
CPU, OLD = Machine("cpu", None, ALL), Machine("cuda", (7, 5), ALL)
A100, H100 = Machine("cuda", (8, 0), ALL), Machine("cuda", (9, 0), TORCH)
HALF, FULL = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("machine", "dtype", "head", "branches", "way"),
    [
        (CPU, FULL, 64, False, "segments"),
        (CPU, HALF, 64, True, "segments"),
        (OLD, HALF, 64, False, "segments"),
        (OLD, FULL, 64, False, "segments"),
        (A100, HALF, 64, False, "flash"),
        (A100, torch.float16, 128, True, "flash"),
        (A100, HALF, 512, False, "flex"),
        (A100, HALF, 80, True, "flash"),
        (A100, HALF, 20, True, "segments"),
        (A100, FULL, 64, False, "flex"),
        (A100, FULL, 80, False, "segments"),
        (A100, FULL, 8, False, "segments"),
        (A100, torch.float64, 64, False, "segments"),
        (H100, HALF, 64, False, "varlen"),
        (H100, HALF, 64, True, "flex"),
        (H100, HALF, 80, True, "segments"),
        (Machine("cuda", (9, 0), frozenset({"flash_attn"})), HALF, 64, True, "flash"),
        (Machine("cuda", (9, 0), frozenset({"varlen"})), HALF, 64, True, "segments"),
        (Machine("cuda", (12, 0)), HALF, 64, False, "segments"),
        (Machine("mps", None, ALL), HALF, 64, False, "segments"),
    ],
)
@pytest.mark.fault("C20")
def test_attention(machine: Machine, dtype: torch.dtype, head: int, branches: bool, way: str) -> None:
    assert attention_way(machine, dtype, head, branches=branches) == way


@pytest.mark.parametrize(
    ("machine", "base", "products"),
    [(A100, HALF, HALF), (A100, FULL, None), (OLD, HALF, None), (CPU, HALF, None), (H100, HALF, HALF)],
)
@pytest.mark.fault("C20")
def test_number_type_of_products(machine: Machine, base: torch.dtype, products: torch.dtype | None) -> None:
    assert autocast_type(machine, base) == products


def test_fused_adamw() -> None:
    assert [fuses_adamw(machine) for machine in (CPU, OLD, A100, Machine("mps"))] == [True, True, True, False]


def test_a_cpu_needs_no_look() -> None:
    assert machine_of(torch.device("cpu")) == Machine("cpu")


def test_a_gpu_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda one: (asked.append(one), (8, 6))[1])
    monkeypatch.setattr("lora_kit.model.machine.find_spec", lambda name: name != "flash_attn")
    machine_of.cache_clear()
    try:
        device = torch.device("cuda", 3)
        assert machine_of(device) == machine_of(device) == Machine("cuda", (8, 6), TORCH)
        assert asked == [device]
    finally:
        machine_of.cache_clear()
