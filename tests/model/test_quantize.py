"""4-bit layers multiply with bitsandbytes' own numbers, in the fused step too, and keep nothing dense."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch import Tensor

from lora_kit.data.collate import flatten
from lora_kit.model import fused_llama, lora_ops
from lora_kit.model.adapter_inject import adapter_parameters, add_adapter
from lora_kit.model.forward import example_nats, sum_nats
from lora_kit.model.quantize import (
    as_held,
    dense_weight,
    dequantized_weights,
    is_four_bit,
    is_packed,
    number_type,
)
from lora_kit.recipe.schema import LoraSpec, QuantizationSpec


@pytest.fixture
def four_bit(tiny_folder: Any, open_model: Any) -> Callable[[], Any]:
    folder = tiny_folder("llama", hidden_size=64)
    return lambda: open_model(folder, dtype="float32", method="nf4")


def test_weights_are_bitsandbytes_own(four_bit: Any) -> None:
    model = four_bit()
    layers = {name: m for name, m in model.named_modules() if isinstance(m, Linear4bit)}
    assert len(layers) == 7 * model.config.num_hidden_layers
    for name, layer in layers.items():
        assert is_four_bit(layer)
        assert number_type(layer) is torch.float32
        assert layer.weight.quant_state.nested
        dense = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        assert torch.equal(dense_weight(layer), dense)
        assert torch.equal(dequantized_weights(model)[name](), dense)


def test_the_fused_forward_of_the_base_is_bitsandbytes_bit_for_bit(four_bit: Any) -> None:
    """Linear layers alone: attention and norms of the two forwards round differently."""
    model = four_bit()
    x = torch.randn(50, 64)
    for layer in model.model.layers:
        for part in fused_llama.parts_of(layer):
            if part.bases[0].in_features == 64:
                found, _ = lora_ops.project(part, [], x)
                assert torch.equal(found, torch.cat([base(x) for base in part.bases], 1))


def test_eight_bits_are_bitsandbytes_own(tiny_folder: Any, open_model: Any) -> None:
    """Weights and what a merge rounds to; a batch's other rows don't matter, however large they are."""
    folder, spec = tiny_folder("llama", hidden_size=64), QuantizationSpec(method="int8")
    model, plain = (open_model(folder, dtype="float32", method=method) for method in ("int8", "none"))
    layer, whole = model.model.layers[0].mlp.up_proj, plain.model.layers[0].mlp.up_proj
    assert type(layer) is Linear8bitLt
    assert layer.weight.dtype is torch.int8
    assert number_type(layer) is torch.float32
    dense = dense_weight(layer)
    assert torch.equal(dense, as_held(whole.weight.data, spec))
    assert (dense - whole.weight).abs().max() <= whole.weight.abs().max() / 127
    x = torch.randn(5, 64)
    other = x.clone()
    other[1:] *= 100
    torch.testing.assert_close(layer(x), x @ dense.T)
    assert torch.equal(layer(other)[0], layer(x)[0])
    assert not any(is_packed(module) for module in (model.lm_head, model.model.embed_tokens))


def nats_and_gradients(model: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    loss = sum_nats(model, batch)
    loss.nats.backward()
    found = {name: p.grad / loss.tokens for name, p in adapter_parameters(model).items()}
    model.zero_grad()
    return example_nats(model, batch), found


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_fused_step_is_that_of_bitsandbytes_and_peft(
    four_bit: Any, examples: Any, base_of: Any, dropout: float, monkeypatch: Any, tiny_folder: Any
) -> None:
    family = base_of(tiny_folder("llama", hidden_size=64)).family
    model = add_adapter(four_bit(), LoraSpec(rank=4, dropout=dropout), family, seed=1)
    for parameter in adapter_parameters(model).values():
        parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    batch = flatten(examples(5, 3))
    assert fused_llama.fits(model.get_base_model())
    fused, gradients = nats_and_gradients(model.eval(), batch)
    monkeypatch.setattr(fused_llama, "fits", lambda _: False)
    plain, theirs = nats_and_gradients(model, batch)
    assert torch.allclose(fused, plain, rtol=1e-5)
    largest = max(g.abs().max() for g in theirs.values())
    assert largest > 1e-3
    assert all((gradients[name] - theirs[name]).abs().max() < 1e-4 * largest for name in theirs)


def test_another_compute_type_is_left_to_bitsandbytes(four_bit: Any) -> None:
    model = four_bit()
    model.model.layers[0].mlp.up_proj.compute_dtype = torch.bfloat16
    assert not fused_llama.fits(model)


def test_nothing_dense_is_kept_for_the_backward_pass(
    four_bit: Any, examples: Any, base_of: Any, tiny_folder: Any
) -> None:
    family = base_of(tiny_folder("llama", hidden_size=64)).family
    model = add_adapter(four_bit(), LoraSpec(rank=4), family, seed=1)
    shapes: list[tuple[int, ...]] = []
    batch = flatten(examples(2, 3))

    def seen(tensor: Tensor) -> Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda t: t):
        sum_nats(model, batch)
    dense = {(base.out_features, base.in_features) for base in model.modules() if is_four_bit(base)}
    assert shapes
    assert not dense & set(shapes)
