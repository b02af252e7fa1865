"""Offloaded activations: the same bits; all but the weights goes and comes back; nothing goes on a CPU."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lora_kit.catalogue import FAMILIES
from lora_kit.data.collate import flatten, pad
from lora_kit.model import engine as engine_module
from lora_kit.model import offload
from lora_kit.model.adapter_inject import adapter_parameters, add_adapter, load_adapter_tensors
from lora_kit.model.engine import choose_number_type, engine_of, offload_activations
from lora_kit.model.forward import sum_nats
from lora_kit.model.memory import recompute_layers
from lora_kit.recipe.schema import LoraSpec


@pytest.fixture(params=["llama", "gpt_neox", "bloom", "qwen3"])
def tuned(request: pytest.FixtureRequest, tiny_folder: Any, open_model: Any) -> Any:
    model = add_adapter(
        open_model(tiny_folder(request.param)), LoraSpec(rank=4, dropout=0.3), FAMILIES[request.param], seed=3
    )
    generator = torch.Generator().manual_seed(5)
    values = {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.1
        for name, p in sorted(adapter_parameters(model).items())
    }
    load_adapter_tensors(model, values)
    model.collate = flatten if FAMILIES[request.param].flattened else pad
    return model.train()


def gradients(model: Any, batch: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    sum_nats(model, batch).nats.backward()
    found = {name: p.grad.clone() for name, p in adapter_parameters(model).items()}
    model.zero_grad()
    return found


def same(weight: Tensor, other: Tensor) -> bool:
    return any(way.shape == other.shape and torch.equal(way, other) for way in (weight, weight.t()))


@pytest.mark.parametrize("memory", ["standard", "low"])
def test_the_same_gradients_with_everything_saved_elsewhere(
    tuned: Any, examples: Any, monkeypatch: Any, memory: str
) -> None:
    batch = tuned.collate(examples(5, 7))
    if memory == "low":
        recompute_layers(tuned)
    expected = gradients(tuned, batch)
    assert max(one.abs().max().item() for one in expected.values()) > 1e-2
    offload_activations(tuned)
    gone: list[Tensor] = []
    back: list[Tensor] = []
    away, home = offload._away, offload._back
    monkeypatch.setattr(offload, "_moves", lambda _: True)
    monkeypatch.setattr(offload, "_away", lambda t: (gone.append(t), away(t))[1])

    def note(saved: Any) -> Tensor:
        if isinstance(saved, offload.Waiting):
            back.append(saved.copy)
        return home(saved)

    monkeypatch.setattr(offload, "_back", note)
    found = gradients(tuned, batch)
    assert gone
    assert back
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    weights = [p for p in tuned.parameters() if p.dim() == 2]
    copied = {weight.shape for weight in weights for one in gone if same(weight, one)}
    assert not copied, "a weight was copied"


def test_a_copy_has_its_own_content_and_the_same_strides() -> None:
    tensor = torch.arange(12.0).view(3, 4).t()
    waiting = offload._away(tensor)
    tensor.zero_()
    assert offload._back(waiting).tolist() == torch.arange(12.0).view(3, 4).t().tolist()
    assert waiting.copy.stride() == tensor.stride()


def test_on_a_cpu_nothing_is_copied_but_the_hooks_are_there(
    tuned: Any, examples: Any, monkeypatch: Any
) -> None:
    asked: list[Tensor] = []
    moves = offload._moves
    monkeypatch.setattr(offload, "_moves", lambda t: (asked.append(t), moves(t))[1])
    monkeypatch.setattr(offload, "_away", lambda _: pytest.fail("copied"))
    batch = tuned.collate(examples(3, 2))
    sum_nats(tuned, batch)
    assert not asked
    assert not engine_of(tuned.get_base_model()).offload
    offload_activations(tuned)
    sum_nats(tuned, batch)
    assert asked


def test_what_is_on_a_gpu_moves() -> None:
    class OnGpu:
        device = torch.device("cuda")

    assert offload._moves(OnGpu())
    assert not offload._moves(torch.zeros(1))


def test_products_in_another_number_type(tuned: Any, examples: Any, monkeypatch: Any) -> None:
    """What a bfloat16 base on a GPU gets, here on a CPU: coarser products, gradients in float32."""
    batch = tuned.float().collate(examples(5, 7))
    expected = gradients(tuned.eval(), batch)
    monkeypatch.setattr(engine_module, "autocast_type", lambda _, __: torch.bfloat16)
    choose_number_type(tuned)
    assert engine_of(tuned.get_base_model()).autocast == torch.bfloat16
    found = gradients(tuned, batch)
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        distance = (gradient - expected[name]).norm() / expected[name].norm()
        assert 0 < distance < 0.2, name


def test_on_a_cpu_products_keep_their_number_type(tuned: Any) -> None:
    choose_number_type(tuned)
    assert engine_of(tuned.get_base_model()).autocast is None
