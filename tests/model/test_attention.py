"""Segment attention is block-diagonal causal attention, and plain attention where there are no segments."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM

from lora_kit.model.attention import segment_arguments, segment_attention


@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_it_equals_a_block_diagonal_mask(key_heads: int) -> None:
    torch.manual_seed(0)
    lengths = (3, 1, 7, 5)
    query = torch.randn(1, 4, 16, 8, dtype=torch.float64)
    key, value = torch.randn(2, 1, key_heads, 16, 8, dtype=torch.float64)
    owner = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    mask = (owner[:, None] == owner) & torch.ones(16, 16, dtype=torch.bool).tril()
    repeated = (tensor.repeat_interleave(4 // key_heads, 1) for tensor in (key, value))
    expected = scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=0.3)
    options = {"scaling": 0.3, "segment_lengths": lengths}
    found, weights = segment_attention(SimpleNamespace(), query, key, value, None, **options)
    assert weights is None
    assert torch.allclose(found, expected.transpose(1, 2), rtol=0, atol=1e-14)


def test_lengths_that_do_not_fit_are_an_error() -> None:
    tensor = torch.randn(1, 1, 5, 4)
    with pytest.raises(ValueError, match="other lengths"):
        segment_attention(
            SimpleNamespace(), tensor, tensor, tensor, None, scaling=1.0, segment_lengths=(2, 2)
        )


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_generation_is_that_of_plain_transformers(family: str, tiny_folder: Any, open_model: Any) -> None:
    folder: Path = tiny_folder(family)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    ids = torch.tensor([[0, 0, 7, 9, 30, 41], [5, 6, 80, 99, 201, 17]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "use_cache": True}
    ours, theirs = (m.generate(ids, attention_mask=mask, **options) for m in (open_model(folder), plain))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_model_without_it_fails_rather_than_leaks(attention: str, tiny_llama: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation=attention)
    ids = torch.arange(10)[None]
    with pytest.raises(RuntimeError):
        plain.model(ids, use_cache=False, **segment_arguments((5, 5), ids.device))
