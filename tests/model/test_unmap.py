"""Mapped weights become the process's own, with the same numbers, and the file is mapped no more."""

import gc
import sys
from typing import Any

import pytest
import torch

from lora_kit.data.collate import share
from lora_kit.data.types import Example
from lora_kit.model.adapter_inject import adapter_parameters, add_adapter
from lora_kit.model.forward import sum_nats
from lora_kit.model.unmap import give_back, mapped_files, own_weights
from lora_kit.recipe.schema import LoraSpec

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/maps")
ROWS = [Example((5, 6, 7, 8, 9), (False, True, True, True, True), "r:1", "0" * 64)]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_nothing_is_mapped_and_nothing_has_changed(
    family: str, tiny_folder: Any, base_of: Any, open_model: Any
) -> None:
    folder = tiny_folder(family)
    found = []
    for own in (False, True):
        torch.manual_seed(0)
        model = add_adapter(open_model(folder), LoraSpec(rank=4), base_of(folder).family, seed=3).train()
        before = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if own:
            own_weights(model)
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        loss = sum_nats(model, share(ROWS)).nats
        loss.backward()
        found.append((loss, [p.grad.clone() for p in adapter_parameters(model).values()]))
    (loss, grads), (own_loss, own_grads) = found
    assert torch.equal(loss, own_loss)
    assert all(torch.equal(a, b) for a, b in zip(grads, own_grads, strict=True))


def test_the_mapping_goes_with_its_last_tensor(tiny_folder: Any, base_of: Any, open_model: Any) -> None:
    folder = tiny_folder("llama")
    before = len(mapped_files(".safetensors"))
    model = open_model(folder)
    if len(mapped_files(".safetensors")) == before:
        pytest.skip("this model was not mapped")
    adapted = add_adapter(model, LoraSpec(rank=4), base_of(folder).family, seed=3)
    own_weights(adapted)
    gc.collect()
    assert len(mapped_files(".safetensors")) == before


def test_memory_of_the_process_itself_is_never_given_back() -> None:
    tensor = torch.arange(1 << 16)
    give_back([tensor], mapped_files(".safetensors"))
    assert torch.equal(tensor, torch.arange(1 << 16))
