"""Tiny models that talk: each family, opened as the command line opens them, some with a random adapter."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_kit.assemble import Opened, open_target
from lora_kit.model.adapter_inject import add_adapter
from lora_kit.recipe.schema import LoraSpec

# With a tied head a random model repeats one token for ever, which would prove little.
UNTIED = {"tie_word_embeddings": False}


@pytest.fixture(scope="session")
def open_tiny(tiny_folder: Callable[..., Path]) -> Callable[[str], Opened]:
    """Factory ``open_tiny(family)``; the model is shared by the session."""
    made: dict[str, Opened] = {}

    def build(family: str) -> Opened:
        if family not in made:
            made[family] = open_target(str(tiny_folder(family, **UNTIED)), device="cpu")
        return made[family]

    return build


@pytest.fixture(scope="session")
def llama(open_tiny: Callable[[str], Opened]) -> Opened:
    return open_tiny("llama")


@pytest.fixture(params=["llama", "gpt_neox", "bloom"])
def any_tiny(request: pytest.FixtureRequest, open_tiny: Callable[[str], Opened]) -> Opened:
    return open_tiny(request.param)


@pytest.fixture(scope="session")
def adapted(tiny_folder: Callable[..., Path]) -> Opened:
    """A LLaMA whose adapter is random and large enough to change its answers."""
    opened = open_target(str(tiny_folder("llama", **UNTIED)), device="cpu")
    model = add_adapter(opened.model, LoraSpec(rank=4), opened.files.family, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.3, generator=generator)
    model.eval()
    return Opened(opened.name, model, opened.encoder, opened.files, None)
