"""A merge streams: its memory is that of a shard, not of the model; and what it writes is proven."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

# The two sides do the same imports and the same small forward pass first, so that what is compared is the
# merge itself. Peak = VmHWM, reset before.
CHILD = """
import gc, re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from lora_kit.artifacts.adapter import SavedAdapter
from lora_kit.assemble import AdapterParts
from lora_kit.export.merge import merge_adapter
from lora_kit.model.adapter_inject import adapter_config
from lora_kit.model.base import find_base
from lora_kit.recipe.schema import BaseSpec, QuantizationSpec

def status(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def merge(base, adapter, out):
    import json
    saved = SavedAdapter(Path(adapter), json.loads((Path(adapter) / "adapter_config.json").read_text()), {})
    files = find_base(BaseSpec(model=base))
    parts = AdapterParts(
        name="x", encoder=None, files=files, adapter=saved, quantization=QuantizationSpec(), dtype="float32"
    )
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    return merge_adapter(parts, [tuple(range(20))], Path(out)).modules, status("VmHWM") - before

small, big, adapter_small, adapter_big, out = sys.argv[1:]
merge(small, adapter_small, out + "/small")
modules, used = merge(big, adapter_big, out + "/big")
print(used, modules)
"""


def many_shards(folder: Path, tokenizer: Path, layers: int) -> tuple[Path, Path]:
    """A base of ``layers`` layers, a shard for every two, and an adapter folder with random weights."""
    import json
    import shutil

    from safetensors.torch import save_file

    from lora_kit.catalogue import FAMILIES
    from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter
    from lora_kit.recipe.schema import LoraSpec

    config = LlamaConfig(
        vocab_size=300,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "base", max_shard_size="60MB")
    for path in tokenizer.iterdir():
        shutil.copyfile(path, folder / "base" / path.name)
    model.requires_grad_(requires_grad=False)
    peft_model = add_adapter(model, LoraSpec(rank=2), FAMILIES["llama"], seed=0)
    tensors = {name: torch.randn(t.shape) * 0.005 for name, t in adapter_tensors(peft_model).items()}
    (folder / "adapter").mkdir()
    save_file(tensors, folder / "adapter/adapter_model.safetensors")
    text = json.dumps(adapter_config(peft_model, "base"))
    (folder / "adapter/adapter_config.json").write_text(text)
    return folder / "base", folder / "adapter"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no Linux /proc to read the peak from")
def test_memory_is_that_of_the_largest_shard(tmp_path: Path, tiny_tokenizer: Any) -> None:
    for name in ("small", "big", "out"):
        (tmp_path / name).mkdir()
    small, big = (
        many_shards(tmp_path / name, tiny_tokenizer, layers) for name, layers in (("small", 1), ("big", 10))
    )
    arguments = [*map(str, (small[0], big[0], small[1], big[1])), str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    used, modules = map(int, done.stdout.split()[-2:])
    sizes = [shard.stat().st_size for shard in big[0].glob("*.safetensors")]
    assert modules == 70
    assert len(sizes) >= 5
    assert sum(sizes) > 4 * max(sizes)
    assert used <= 1.3 * max(sizes), f"{used / 1e6:.0f} MB for shards of at most {max(sizes) / 1e6:.0f} MB"
