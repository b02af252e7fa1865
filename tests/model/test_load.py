"""A loaded base is frozen, complete, finite and quiet."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lora_kit.catalogue import FAMILIES
from lora_kit.data.collate import flatten, pad
from lora_kit.errors import ModelError
from lora_kit.model.adapter_inject import adapter_parameters, add_adapter
from lora_kit.model.base import BaseFiles, find_base
from lora_kit.model.forward import example_nats, sum_nats
from lora_kit.model.load import check_vocabulary, load_model, pick_device
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec


def test_it_is_frozen_and_in_evaluation_mode(
    tiny_any: Path, open_model: Any, no_sockets: None, capfd: pytest.CaptureFixture[str]
) -> None:
    model = open_model(tiny_any, dtype="float32")
    assert not model.training
    assert model.config.use_cache is False
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert capfd.readouterr() == ("", "")


def test_logits_are_those_of_plain_transformers(tiny_any: Path, open_model: Any) -> None:
    ids = torch.arange(20)[None] * 7
    ours = open_model(tiny_any, dtype="float32")(ids).logits
    theirs = AutoModelForCausalLM.from_pretrained(tiny_any, dtype=torch.float32)(ids).logits
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_the_number_type_is_the_one_asked_for(dtype: str, tiny_neox: Path, open_model: Any) -> None:
    assert {p.dtype for p in open_model(tiny_neox, dtype=dtype).parameters()} == {getattr(torch, dtype)}


def edited(folder: Path, to: Path, edit: Any, **config: Any) -> BaseFiles:
    shutil.copytree(folder, to)
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, to / "model.safetensors")
    content = json.loads((folder / "config.json").read_text("utf-8"))
    (to / "config.json").write_text(json.dumps(content | config))
    return find_base(BaseSpec(model=str(to)))


def load(files: BaseFiles, method: str = "none", dtype: str = "float32") -> Any:
    return load_model(files, dtype=dtype, quantization=QuantizationSpec(method=method), device="cpu")


def test_missing_tensors_are_named(tiny_llama: Path, tmp_path: Path) -> None:
    def edit(weights: dict[str, Any]) -> None:
        for name in [name for name in weights if "layers.1" in name]:
            del weights[name]

    with pytest.raises(ModelError, match=r"9 tensors are missing: model\.layers\.1\..* and 4 more"):
        load(edited(tiny_llama, tmp_path / "m", edit))


def test_unexpected_tensors_are_named(tiny_llama: Path, tmp_path: Path) -> None:
    files = edited(tiny_llama, tmp_path / "m", lambda weights: weights.update(extra=torch.ones(2)))
    with pytest.raises(ModelError, match="1 tensors are unexpected: extra"):
        load(files)


def test_another_architecture_than_the_weights(tiny_llama: Path, tmp_path: Path) -> None:
    files = edited(tiny_llama, tmp_path / "m", lambda _: None, intermediate_size=48)
    with pytest.raises(
        ModelError, match=r"6 tensors are of another shape: model\.layers\.0\.mlp\.down_proj"
    ) as caught:
        load(files)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", ["none", "nf4"])
@pytest.mark.fault("C3")
def test_weights_that_are_not_finite(value: float, method: str, tiny_neox: Path, tmp_path: Path) -> None:
    def edit(weights: dict[str, Any]) -> None:
        weights["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"][3, 4] = value

    with pytest.raises(ModelError, match=r"NaN or infinity: gpt_neox\.layers\.1\.mlp\.dense_h_to_4h"):
        load(edited(tiny_neox, tmp_path / "m", edit), method)


def test_float16_that_overflows(tiny_llama: Path, tmp_path: Path) -> None:
    files = edited(tiny_llama, tmp_path / "m", lambda weights: weights["model.norm.weight"].fill_(1e6))
    load(files)
    with pytest.raises(ModelError, match="larger range"):
        load(files, dtype="float16")


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_trains_close_to_full(
    dtype: str, tolerance: float, tiny_any: Path, open_model: Any, examples: Any
) -> None:
    def run(number_type: str) -> tuple[float, torch.Tensor]:
        files = find_base(BaseSpec(model=str(tiny_any)))
        batch = (flatten if files.family.flattened else pad)(examples(4, 8))
        model = add_adapter(open_model(tiny_any, dtype=number_type), LoraSpec(rank=2), files.family, seed=0)
        loss = sum_nats(model, batch)
        loss.nats.backward()
        gradients = [p.grad.flatten() for p in adapter_parameters(model).values() if p.grad is not None]
        return loss.nats.item(), torch.cat(gradients)

    (nats, gradient), (full_nats, full_gradient) = run(dtype), run("float32")
    assert gradient.dtype == torch.float32
    assert nats == pytest.approx(full_nats, rel=tolerance)
    assert (gradient - full_gradient).norm() < 4 * tolerance * full_gradient.norm()


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom"])
@pytest.mark.parametrize("method", ["nf4", "fp4"])
def test_four_bits_train(family: str, method: str, tiny_folder: Any, open_model: Any, examples: Any) -> None:
    folder: Path = tiny_folder(family, hidden_size=64)  # bitsandbytes' blocks are of 64 numbers
    model = open_model(folder, dtype="float32", method=method)
    assert {type(m).__name__ for n, m in model.named_modules() if n.endswith("dense_h_to_4h")} <= {
        "Linear4bit"
    }
    assert sum(p.dtype == torch.uint8 for p in model.parameters()) >= 8
    assert type(model.get_output_embeddings()).__name__ == "Linear"
    batch = (flatten if FAMILIES[family].flattened else pad)(examples(3, 1))
    dense = example_nats(open_model(folder, dtype="float32"), batch)
    assert not torch.equal(dense, example_nats(model, batch))
    assert torch.allclose(dense, example_nats(model, batch), rtol=0.5)
    peft_model = add_adapter(model, LoraSpec(rank=2), FAMILIES[family], seed=0)
    sum_nats(peft_model, batch).nats.backward()
    gradients = {name: p.grad for name, p in adapter_parameters(peft_model).items() if ".lora_B." in name}
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


def test_devices(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (pick_device("auto"), pick_device("cpu")) == ("cpu", "cpu")
    files = find_base(BaseSpec(model=str(tiny_llama)))
    with pytest.raises(ModelError, match="no GPU"):
        load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == "cuda"


@pytest.mark.fault("C13")
def test_a_tokenizer_with_more_tokens_than_rows(tiny_llama: Path) -> None:
    files = find_base(BaseSpec(model=str(tiny_llama)))
    check_vocabulary(files, {"a": 0, "b": 299})
    with pytest.raises(
        ModelError, match=r"2 tokens have no row in the embedding of 300: '<x>' .300., 'y' .512."
    ):
        check_vocabulary(files, {"a": 0, "<x>": 300, "y": 512})
    check_vocabulary(replace(files, config=files.config | {"vocab_size": 513}), {"y": 512})
