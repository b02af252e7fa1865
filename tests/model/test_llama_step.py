"""The step of its own gives the scores of transformers' layers, with and without an adapter."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_kit.model import decode, llama_step
from lora_kit.model.adapter_inject import add_adapter
from lora_kit.model.base import BaseFiles
from lora_kit.model.kv_cache import KeyValueCache, Span
from lora_kit.recipe.schema import LoraSpec

PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16]]
NEXT = [[[20], [21], [22]], [[23, 24, 25], [26], [27, 28]], [[29, 30], [31, 32, 33, 34], [35]]]


def scores_of(model: Any, steps: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
    """Scores of every token of steps behind the prompts, ``(all tokens, V)``."""
    cache = KeyValueCache(len(PROMPTS))
    lengths = [len(prompt) for prompt in PROMPTS]
    with torch.no_grad():
        decode.read(model, cache, PROMPTS, [Span(slot, 0, length) for slot, length in enumerate(lengths)])
        found = []
        for tokens in steps:
            found.append(decode.step(model, cache, tokens, lengths))
            lengths = [length + len(row) for length, row in zip(lengths, tokens, strict=True)]
    return torch.cat(found)


def plain_scores(model: Any) -> torch.Tensor:
    """The same from whole texts, each alone."""
    rows = []
    with torch.no_grad():
        for slot, prompt in enumerate(PROMPTS):
            text = prompt + [token for tokens in NEXT for token in tokens[slot]]
            rows.append(model(input_ids=torch.tensor([text])).logits[0, len(prompt) :])
    ends = [[sum(len(tokens[slot]) for tokens in NEXT[:at]) for at in range(len(NEXT))] for slot in range(3)]
    return torch.cat(
        [
            rows[slot][ends[slot][at] : ends[slot][at] + len(tokens[slot])]
            for at, tokens in enumerate(NEXT)
            for slot in range(3)
        ]
    )


@pytest.fixture(params=["plain", "untied", "bias", "adapter"])
def llama(
    request: pytest.FixtureRequest,
    tiny_folder: Callable[..., Path],
    open_model: Callable[..., Any],
    base_of: Callable[..., BaseFiles],
) -> Any:
    settings = {"untied": {"tie_word_embeddings": False}, "bias": {"attention_bias": True, "mlp_bias": True}}
    folder = tiny_folder("llama", **settings.get(request.param, {}))
    model = open_model(folder)
    if request.param == "adapter":
        model = add_adapter(
            model, LoraSpec(rank=3, targets=("q_proj", "o_proj", "down_proj")), base_of(folder).family, seed=0
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    return model.eval()


def test_scores_of_several_tokens_a_row_are_those_of_whole_texts(llama: Any) -> None:
    inner = llama.get_base_model() if hasattr(llama, "get_base_model") else llama
    assert llama_step.fits(inner)
    close = {"rtol": 1e-4, "atol": 1e-5}  # their norm rounds to float32
    torch.testing.assert_close(scores_of(llama, NEXT), plain_scores(inner), **close)


@pytest.mark.parametrize("family", ["gpt_neox", "stablelm", "gpt_bigcode", "llama"])
def test_transformers_layers_take_several_tokens_a_row_too(
    family: str,
    tiny_folder: Callable[..., Path],
    open_model: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = open_model(tiny_folder(family))
    monkeypatch.setattr(llama_step, "fits", lambda _: False)
    torch.testing.assert_close(scores_of(model, NEXT), plain_scores(model), rtol=1e-10, atol=1e-10)


def test_it_fits_only_what_it_computes(
    tiny_folder: Callable[..., Path], open_model: Callable[..., Any]
) -> None:
    assert not llama_step.fits(open_model(tiny_folder("gpt_neox")))
    assert not llama_step.fits(open_model(tiny_folder("llama"), "float32", "nf4"))
    assert not llama_step.fits(open_model(tiny_folder("llama", hidden_act="gelu")))
