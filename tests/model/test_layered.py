"""A model read layer by layer gives the logits of the loaded one, bit for bit, and holds no weights after."""

from typing import Any

import pytest
import torch

from lora_kit.catalogue import FAMILIES
from lora_kit.errors import ModelError
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter
from lora_kit.model.layered import four_bit_names, layered_model
from lora_kit.model.quantize import as_held, dequantized_weights
from lora_kit.recipe.schema import LoraSpec, QuantizationSpec

IDS = torch.arange(20)[None] * 7


@pytest.mark.parametrize("family", FAMILIES)
def test_its_logits_are_those_of_the_loaded_model(
    family: str, tiny_folder: Any, base_of: Any, open_model: Any
) -> None:
    files = base_of(tiny_folder(family))
    model = layered_model(files, dtype=torch.float32)
    loaded = open_model(files.folder, dtype="float32")
    loaded.set_attn_implementation("sdpa")
    with torch.no_grad():
        assert torch.equal(model(IDS, use_cache=False).logits, loaded(IDS, use_cache=False).logits)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("method", ["none", "nf4", "fp4"])
def test_with_an_adapter(method: str, tiny_folder: Any, base_of: Any, open_model: Any) -> None:
    torch.manual_seed(0)
    files = base_of(tiny_folder("llama", hidden_size=64))
    base = open_model(files.folder, dtype="float32", method=method)
    peft_model = add_adapter(base, LoraSpec(rank=2), files.family, seed=1)
    tensors = {name: torch.randn(t.shape) * 0.1 for name, t in adapter_tensors(peft_model).items()}
    from lora_kit.model.adapter_inject import load_adapter_tensors

    load_adapter_tensors(peft_model, tensors)
    base.set_attn_implementation("sdpa")
    layered = layered_model(
        files,
        dtype=torch.float32,
        quantization=QuantizationSpec(method=method),
        adapter=(adapter_config(peft_model, "x"), tensors),
    )
    with torch.no_grad():
        found, expected = layered(IDS, use_cache=False).logits, peft_model(IDS, use_cache=False).logits
    assert (found - expected).abs().max() < 1e-5 * max(1, expected.abs().max())  # float32's rounding
    with peft_model.disable_adapter(), torch.no_grad():
        assert (peft_model(IDS, use_cache=False).logits - expected).abs().max() > 1e-2


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom"])
def test_four_bits_are_rounded_as_bitsandbytes_holds_them(
    family: str, double_quant: bool, tiny_folder: Any, base_of: Any, open_model: Any
) -> None:
    from lora_kit.model.load import load_model

    files = base_of(tiny_folder(family, hidden_size=64))
    spec = QuantizationSpec(method="nf4", double_quant=double_quant)
    held = dequantized_weights(load_model(files, dtype="float32", quantization=spec, device="cpu"))
    plain = dict(open_model(files.folder, dtype="float32").named_parameters())
    assert set(held) == four_bit_names(files)
    for name, dense in held.items():
        assert torch.equal(as_held(plain[f"{name}.weight"].data, spec), dense())


def test_a_missing_weight_is_named(tiny_llama: Any, base_of: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("lora_kit.model.stored_weights.read_header", lambda _: {})
    with pytest.raises(ModelError, match=r"no file holds the weight model\.embed_tokens"):
        layered_model(base_of(tiny_llama), dtype=torch.float32)(IDS)
