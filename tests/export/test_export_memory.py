"""An export streams: its memory is that of a tensor, not of the model, the comparison of logits included."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# A tiny model goes first, so that imports and what libraries set up once don't count. Peak = VmHWM, reset.
CHILD = """
import gc, re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from lora_kit.export.exporter import ExportOptions
from lora_kit.export.run import export_model, source_of
from lora_kit.model.base import find_base
from lora_kit.recipe.schema import BaseSpec

def status(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def export(folder, out):
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    source = source_of(find_base(BaseSpec(model=folder)), "x")
    report = export_model(source, "gguf", Path(out), ExportOptions("q4_0"))
    assert report["logits"]["tokens"] > 100
    return status("VmHWM") - before

small, big, out = sys.argv[1:]
export(small, out + "/small")
print(export(big, out + "/big"))
"""
SLACK_BYTES = 24 << 20  # pieces of a million numbers, and some hundred tokens' activations


def wide(folder: Path, tokenizer: Path) -> tuple[int, int]:
    """A model of 8 layers; bytes of its largest tensor, and of all."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    sizes = [parameter.nbytes for parameter in model.parameters()]
    return max(sizes), sum(sizes)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no Linux /proc to read the peak from")
def test_memory_is_that_of_the_largest_tensor(tmp_path: Path, tiny_llama: Path, tiny_tokenizer: Any) -> None:
    largest, everything = wide(tmp_path / "big", tiny_tokenizer)
    assert everything > 2 * (2 * largest + SLACK_BYTES)
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(tiny_llama), str(tmp_path / "big")]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    used = int(done.stdout.split()[-1])
    assert used <= 2 * largest + SLACK_BYTES, f"{used / 1e6:.0f} MB with tensors of {largest / 1e6:.0f} MB"
