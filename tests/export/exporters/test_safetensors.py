"""A folder of safetensors is what transformers' own loaders open, and says the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_kit.export.exporters import safetensors as exporter

ASKED = [{"role": "user", "content": "what is the answer?"}]
IDS = torch.arange(4, 60)[None]


@pytest.mark.parametrize("shard_bytes", [1 << 40, 20_000], ids=["one file", "shards"])
@torch.no_grad()
def test_transformers_opens_it(
    shard_bytes: int, tiny_llama: Path, export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = exporter.shards_of
    monkeypatch.setattr(exporter, "shards_of", lambda plans: cut(plans, shard_bytes))
    report = export(tiny_llama, "safetensors")
    folder = Path(report["folder"])
    index = folder / "model.safetensors.index.json"
    assert index.exists() == (report["shards"] > 1) == (shard_bytes < 1 << 40)
    if index.exists():
        named = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        assert named == {path.name for path in folder.glob("*.safetensors")}
    theirs, ours = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, tiny_llama))
    assert torch.equal(theirs(IDS).logits, ours(IDS).logits)
    written, original = (AutoTokenizer.from_pretrained(path) for path in (folder, tiny_llama))
    prompts = [t.apply_chat_template(ASKED, add_generation_prompt=True) for t in (written, original)]
    assert prompts[0] == prompts[1]


def test_another_number_type_is_the_folders_own(tiny_llama: Path, export: Any) -> None:
    folder = Path(export(tiny_llama, "safetensors", "bf16")["folder"])
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.bfloat16
