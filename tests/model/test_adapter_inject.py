"""The adapter sits where it was asked for, starts from its seed alone, and is kept under PEFT's names."""

import json
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from lora_kit.catalogue import FAMILIES
from lora_kit.errors import ModelError
from lora_kit.model.adapter_inject import (
    adapter_config,
    adapter_parameters,
    adapter_tensors,
    add_adapter,
    attach_adapter,
    load_adapter_tensors,
    scaling,
)
from lora_kit.recipe.schema import LoraSpec

LLAMA = FAMILIES["llama"]


@pytest.fixture
def llama(tiny_llama: Path, open_model: Any) -> Any:
    return open_model(tiny_llama, dtype="float32")


@given(rank=st.integers(1, 512), alpha=st.floats(0.1, 1024))
def test_scaling(rank: int, alpha: float) -> None:
    assert scaling(rank, alpha, rank_stabilized=False) == alpha / rank
    assert scaling(rank, alpha, rank_stabilized=True) == alpha / sqrt(rank)


@pytest.mark.parametrize("stabilized", [False, True])
def test_peft_scales_as_we_say(stabilized: bool, llama: Any) -> None:
    spec = LoraSpec(rank=8, alpha=20.0, rank_stabilized=stabilized)
    layer = add_adapter(llama, spec, LLAMA, seed=0).base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == scaling(8, 20.0, rank_stabilized=stabilized)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_is_every_linear_layer_but_the_head(
    family: str, tiny_folder: Any, open_model: Any
) -> None:
    model = open_model(tiny_folder(family), dtype="float32")
    linear = sum(isinstance(module, torch.nn.Linear) for module in model.modules())
    peft_model = add_adapter(model, LoraSpec(rank=2), FAMILIES[family], seed=0)
    names = adapter_tensors(peft_model).keys()
    assert len(names) == 2 * (linear - 1)
    assert not [name for name in names if "lm_head" in name]
    trainable = [name for name, p in peft_model.named_parameters() if p.requires_grad]
    assert len(trainable) == len(names)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("mlp", {"gate_proj", "up_proj", "down_proj"}),
        (("v_proj", "q_proj", "v_proj"), {"q_proj", "v_proj"}),
        (("layers.1.mlp.up_proj",), {"up_proj"}),
    ],
)
def test_roles_and_names(targets: Any, expected: set[str], llama: Any) -> None:
    peft_model = add_adapter(llama, LoraSpec(rank=2, targets=targets), LLAMA, seed=0)
    assert {name.split(".")[-3] for name in adapter_tensors(peft_model)} == expected


def test_a_fresh_adapter_is_a_function_of_its_seed_alone(tiny_llama: Path, open_model: Any) -> None:
    def fresh(seed: int, noise: int, targets: Any = "all-linear") -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        model = open_model(tiny_llama, dtype="float32")
        before = torch.random.get_rng_state()
        tensors = adapter_tensors(add_adapter(model, LoraSpec(rank=4, targets=targets), LLAMA, seed=seed))
        assert torch.equal(before, torch.random.get_rng_state())
        return tensors

    one, same, other, few = fresh(1, 5), fresh(1, 6), fresh(2, 5), fresh(1, 5, "mlp")
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(torch.equal(one[name], few[name]) for name in few)
    for name, tensor in one.items():
        if ".lora_B." in name:
            assert not tensor.any()
        else:
            bound = 1 / sqrt(tensor.shape[1])
            assert not torch.equal(tensor, other[name])
            assert 0.5 * bound < tensor.abs().max() <= bound
            assert abs(tensor.mean()) < bound / 2
    distinct = {tuple(t.flatten()[:4].tolist()) for n, t in one.items() if ".lora_A." in n}
    assert len(distinct) == len(one) // 2


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", "float32"), ("bfloat16", "float32"), ("float64", "float64")]
)
def test_adapter_weights_are_precise(dtype: str, expected: str, tiny_llama: Path, open_model: Any) -> None:
    peft_model = add_adapter(open_model(tiny_llama, dtype=dtype), LoraSpec(rank=2), LLAMA, seed=0)
    assert {p.dtype for p in adapter_parameters(peft_model).values()} == {getattr(torch, expected)}


def test_the_model_stays_in_its_mode(llama: Any) -> None:
    peft_model = add_adapter(llama, LoraSpec(rank=2, dropout=0.5), LLAMA, seed=0)
    assert not any(module.training for module in peft_model.modules())


def randomized(peft_model: PeftModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    tensors = {n: torch.randn(t.shape, generator=generator) for n, t in adapter_tensors(peft_model).items()}
    load_adapter_tensors(peft_model, tensors)
    return tensors


def test_names_are_those_of_peft_and_copies_are_copies(llama: Any) -> None:
    peft_model = add_adapter(llama, LoraSpec(rank=2), LLAMA, seed=0)
    tensors = randomized(peft_model)
    theirs = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    assert theirs.keys() == tensors.keys()
    found = adapter_tensors(peft_model)
    assert all(torch.equal(found[name], theirs[name]) for name in theirs)
    next(iter(found.values())).zero_()
    assert torch.equal(next(iter(adapter_tensors(peft_model).values())), next(iter(tensors.values())))


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_alone_reads_what_we_write(
    family: str, tiny_folder: Any, open_model: Any, tmp_path: Path
) -> None:
    folder: Path = tiny_folder(family)
    spec = LoraSpec(rank=3, alpha=5.0, targets="attention", rank_stabilized=True)
    ours = add_adapter(open_model(folder, dtype="float64"), spec, FAMILIES[family], seed=0)
    tensors = randomized(ours)
    config = adapter_config(ours, str(folder))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    ids = torch.arange(24)[None] * 3
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    theirs = PeftModel.from_pretrained(plain, tmp_path)
    attached = attach_adapter(open_model(folder, dtype="float64"), config, tensors)
    assert torch.equal(attached(input_ids=ids).logits, ours(input_ids=ids).logits)
    assert torch.allclose(theirs(input_ids=ids).logits, ours(input_ids=ids).logits, rtol=0, atol=1e-12)
    assert not torch.allclose(
        open_model(folder, dtype="float64")(ids).logits, ours(input_ids=ids).logits, atol=0.1
    )


def test_we_read_what_peft_writes(llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peft_model = add_adapter(llama, LoraSpec(rank=2), LLAMA, seed=0)
    randomized(peft_model)
    peft_model.save_pretrained(tmp_path, save_embedding_layers=False)
    written = json.loads((tmp_path / "adapter_config.json").read_text("utf-8"))
    ours = adapter_config(peft_model, written["base_model_name_or_path"])
    assert {key: ours[key] for key in written} | {"target_modules": 0} == written | {"target_modules": 0}
    assert ours["target_modules"] == sorted(written["target_modules"])


def test_it_is_read_back_in_place(llama: Any) -> None:
    peft_model = add_adapter(llama, LoraSpec(rank=2), LLAMA, seed=0)
    parameter = next(iter(adapter_parameters(peft_model).values()))
    randomized(peft_model)
    assert next(iter(adapter_parameters(peft_model).values())) is parameter
    assert parameter.requires_grad


def test_a_list_of_targets_must_hit_each(llama: Any) -> None:
    with pytest.raises(ModelError) as caught:
        add_adapter(llama, LoraSpec(targets=("q_proj", "c_attn", "wq")), LLAMA, seed=0)
    assert [problem.found for problem in caught.value.problems] == [
        "'c_attn' matches no layer",
        "'wq' matches no layer",
    ]
    assert "q_proj" in caught.value.problems[0].cure


def test_only_the_upper_layers(tiny_llama: Path, open_model: Any) -> None:
    peft_model = add_adapter(
        open_model(tiny_llama, dtype="float32"), LoraSpec(rank=2, layers="last-1"), LLAMA, seed=0
    )
    tensors = adapter_tensors(peft_model)
    assert len(tensors) == 14
    assert all(".layers.1." in name for name in tensors)
    again = attach_adapter(open_model(tiny_llama, dtype="float32"), adapter_config(peft_model, "x"), tensors)
    assert adapter_tensors(again).keys() == tensors.keys()


def test_more_upper_layers_than_there_are(llama: Any) -> None:
    with pytest.raises(ModelError, match="last-3, but the model has 2 layers"):
        add_adapter(llama, LoraSpec(layers="last-3"), LLAMA, seed=0)
