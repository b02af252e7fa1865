"""llama.cpp's logits are ours: names, rows, numbers and positions mean the same to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lora_kit.artifacts.adapter import read_adapter, save_adapter
from lora_kit.catalogue import GGUF_ARCHITECTURES
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.types import Message
from lora_kit.export.exporter import ExportOptions
from lora_kit.export.gguf.adapter_file import make_adapter_gguf
from lora_kit.export.gguf.llama_cpp import LlamaFile
from lora_kit.export.gguf.quantize import NUMBER_TYPES
from lora_kit.export.run import export_model, source_of
from lora_kit.harness.engines.llama_cpp_engine import open_gguf
from lora_kit.harness.engines.transformers_engine import TransformersEngine
from lora_kit.model.adapter_inject import (
    adapter_config,
    adapter_tensors,
    add_adapter,
    load_adapter_tensors,
)
from lora_kit.model.base import find_base
from lora_kit.model.gguf_file import read_gguf
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec

IDS = [int(token) for token in torch.randint(4, 256, (100,), generator=torch.Generator().manual_seed(1))]
ROOM = {"vocab_size": 320}  # some tokenizer classes add a token


class LlamaGelu(nn.Module):
    """llama.cpp's only GELU on CPUs: the tanh formula, looked up by a float16 in a table of float16."""

    def forward(self, values: Tensor) -> Tensor:
        """Apply it."""
        rounded = nn.functional.gelu(values.half().float(), approximate="tanh").half().float()
        return torch.where(values <= -10, 0, torch.where(values >= 10, values, rounded))


def with_llama_gelu(model: nn.Module) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if "gelu" in type(child).__name__.lower():
                setattr(parent, name, LlamaGelu())
    return model


@torch.no_grad()
def logits(model: nn.Module) -> np.ndarray:
    return model(torch.tensor([IDS]), use_cache=False).logits[0].float().numpy()


def ours(folder: Path) -> nn.Module:
    return with_llama_gelu(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


@pytest.mark.parametrize("family", list(GGUF_ARCHITECTURES))
def test_logits_of_a_float32_file_are_ours(family: str, tiny_folder: Any, gguf: Callable[..., Path]) -> None:
    folder = tiny_folder(family, **ROOM)
    with LlamaFile(gguf(folder), threads=1) as file:
        found = file.logits(IDS)
    assert np.abs(found - logits(ours(folder))).max() < 1e-3


VARIANTS = {
    "llama3": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "serial": ("gpt_neox", {"use_parallel_residual": False}),
    "multi_head": ("gpt_bigcode", {"multi_query": False}),
    "clipped": ("mpt", {"attn_config": {"clip_qkv": 0.5}}),
    "parallel": ("stablelm", {"use_parallel_residual": True}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_configs_may_say_means_the_same_to_llama_cpp(
    variant: str, tiny_folder: Any, gguf: Callable[..., Path]
) -> None:
    family, config = VARIANTS[variant]
    folder = tiny_folder(family, **ROOM, **config)
    with LlamaFile(gguf(folder), threads=1) as file:
        found = file.logits(IDS)
    assert np.abs(found - logits(ours(folder))).max() < 1e-3


@pytest.mark.parametrize("quant", NUMBER_TYPES)
def test_every_number_type_is_read(quant: str, tiny_llama: Path, gguf: Callable[..., Path]) -> None:
    """Weights of 4 bits on activations of 8: a wrong nibble would leave nothing alike."""
    wanted = logits(ours(tiny_llama))
    with LlamaFile(gguf(tiny_llama, quant), threads=1) as file:
        found = file.logits(IDS)
    likeness = np.corrcoef(found.reshape(-1), wanted.reshape(-1))[0, 1]
    assert likeness > {"f32": 0.999999, "f16": 0.99999, "bf16": 0.999, "q8_0": 0.999}.get(quant, 0.95)


@pytest.mark.parametrize(("quant", "codes"), [("q4_k_m", {12, 14}), ("q5_k_m", {13, 14}), ("q6_k", {14})])
def test_k_quants_are_llama_cpps_own_and_pass_our_checks(
    quant: str, codes: set[int], tiny_folder: Any, tmp_path: Path
) -> None:
    """Codes are ggml's: 12 is Q4_K, 13 Q5_K, 14 Q6_K."""
    folder = tiny_folder("llama", hidden_size=256, intermediate_size=512, tie_word_embeddings=False, **ROOM)
    report = export_model(
        source_of(find_base(BaseSpec(model=str(folder))), "tiny"),
        "gguf",
        tmp_path / "k",
        ExportOptions(quant),
    )
    assert {path.suffix for path in (tmp_path / "k").iterdir()} == {".gguf", ".json"}
    assert report["quant"] == quant
    assert report["weights"]["relative_rms_error"] < 0.1
    path = tmp_path / "k" / report["file"]
    assert {code for code, shape in read_gguf(path).kinds.values() if len(shape) > 1} == codes
    with LlamaFile(path, threads=1) as file:  # random weights of this size make much of small differences
        found = file.logits(IDS)
    assert np.corrcoef(found.reshape(-1), logits(ours(folder)).reshape(-1))[0, 1] > 0.7


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom", "stablelm"])
def test_an_adapter_file_does_what_the_adapter_does(
    family: str, tiny_folder: Any, tmp_path: Path, gguf: Callable[..., Path]
) -> None:
    base = tiny_folder(family, **ROOM)
    files = find_base(BaseSpec(model=str(base)))
    model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
    tuned = add_adapter(model, LoraSpec(rank=4, alpha=6, rank_stabilized=True), files.family, seed=1)
    draw = torch.Generator().manual_seed(2)
    tensors = {name: 0.3 * torch.randn(t.shape, generator=draw) for name, t in adapter_tensors(tuned).items()}
    config = adapter_config(tuned, str(base))
    save_adapter(tmp_path / "adapter", tensors=tensors, config=config, provenance={}, files={})
    saved = read_adapter(tmp_path / "adapter")
    make_adapter_gguf(saved, files, tmp_path / "adapter.gguf", "f32")
    load_adapter_tensors(tuned, tensors)
    wanted = logits(with_llama_gelu(tuned))
    assert np.abs(wanted - logits(ours(base))).max() > 0.1
    with LlamaFile(gguf(base), adapter=tmp_path / "adapter.gguf", threads=1) as file:
        assert np.abs(file.logits(IDS) - wanted).max() < 1e-3


def test_the_engine_answers_as_transformers_does(tiny_folder: Any, gguf: Callable[..., Path]) -> None:
    folder = tiny_folder("llama", tie_word_embeddings=False)
    files = find_base(BaseSpec(model=str(folder)))
    encoder = open_encoder(folder, "model", None)
    model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
    prompts = [[Message("user", text)] for text in ("hi", "the quick brown fox", "what is 1 + 1?")]
    one = TransformersEngine("ours", model, encoder, adapter=False, base_fingerprint="")
    other = open_gguf(gguf(folder), encoder, vocabulary=files.vocab_size, context=256)
    answers = [
        sorted((at, answer.text) for at, answer in engine.generate(prompts, max_new_tokens=24, batch_size=3))
        for engine in (one, other)
    ]
    assert answers[0] == answers[1]
    assert len({text for _, text in answers[0]}) == 3
