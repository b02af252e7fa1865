"""Every shipped recipe plans on its model's real size, without weights; its card says what is predicted."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lora_kit.errors import ModelError
from lora_kit.model.adapter_inject import add_adapter
from lora_kit.model.base import find_base
from lora_kit.model.load import load_model
from lora_kit.model.predict_memory import MemoryNeed, predict_memory
from lora_kit.recipe.load import load_recipe
from lora_kit.recipe.schema import BaseSpec, QuantizationSpec, Recipe
from lora_kit.recipe.shipped import card_fields, recipe_names

GB = 1e9
LAPTOP = 8.0


def llama(**sizes: Any) -> dict[str, Any]:
    return {"model_type": "llama", "vocab_size": 32000, "num_attention_heads": 32} | sizes


def pythia(hidden: int, layers: int, heads: int, vocab: int = 50304) -> dict[str, Any]:
    return {
        "model_type": "gpt_neox",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": vocab,
        "max_position_embeddings": 2048,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
    }


# The sizes in the config.json that each repository publishes on the hub.
CONFIGS: dict[str, dict[str, Any]] = {
    "huggyllama/llama-7b": llama(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32),
    "NousResearch/Llama-2-7b-hf": llama(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32),
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": llama(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_key_value_heads=4
    ),
    "EleutherAI/pythia-410m": pythia(1024, 24, 16),
    "EleutherAI/pythia-2.8b": pythia(2560, 32, 32),
    "EleutherAI/pythia-12b": pythia(5120, 36, 40, vocab=50688),
    "bigscience/bloom-560m": {
        "model_type": "bloom", "n_embed": 1024, "n_layer": 24, "num_attention_heads": 16,
        "vocab_size": 250880, "seq_length": 2048, "hidden_dropout": 0.0, "unk_token_id": 0,
    },
    "bigscience/bloom-7b1": {
        "model_type": "bloom", "n_embed": 4096, "n_layer": 30, "num_attention_heads": 32,
        "vocab_size": 250880, "seq_length": 2048, "hidden_dropout": 0.0, "unk_token_id": 0,
    },
    "stabilityai/stablelm-2-1_6b": {
        "model_type": "stablelm", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 100352, "use_qkv_bias": True,
        "max_position_embeddings": 4096, "partial_rotary_factor": 0.25, "rope_theta": 10000,
    },
    "stabilityai/stablelm-3b-4e1t": {
        "model_type": "stablelm", "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 50304, "use_qkv_bias": False,
        "max_position_embeddings": 4096, "partial_rotary_factor": 0.25, "rope_theta": 10000,
    },
    "mosaicml/mpt-7b": {
        "model_type": "mpt", "d_model": 4096, "n_layers": 32, "n_heads": 32, "expansion_ratio": 4,
        "max_seq_len": 2048, "vocab_size": 50432, "no_bias": True, "norm_type": "low_precision_layernorm",
        "learned_pos_emb": True, "logit_scale": None, "emb_pdrop": 0, "resid_pdrop": 0,
        "embedding_fraction": 1.0, "init_device": "cpu", "tokenizer_name": "EleutherAI/gpt-neox-20b",
        "auto_map": {"AutoModelForCausalLM": "modeling_mpt.MPTForCausalLM"}, "verbose": 0,
        "attn_config": {
            "alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0,
            "attn_type": "multihead_attention", "attn_uses_sequence_id": False, "clip_qkv": None,
            "prefix_lm": False, "qk_ln": False, "softmax_scale": None,
        },
    },
    "bigcode/starcoder": {
        "model_type": "gpt_bigcode", "n_embd": 6144, "n_layer": 40, "n_head": 48, "n_inner": 24576,
        "n_positions": 8192, "vocab_size": 49152, "bos_token_id": 0, "eos_token_id": 0,
        "activation_function": "gelu", "multi_query": True,
        "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "summary_type": "cls_index",
        "inference_runner": 0, "validate_runner_input": True, "pad_key_length": True,
    },
    "bigcode/tiny_starcoder_py": {
        "model_type": "gpt_bigcode", "n_embd": 768, "n_layer": 20, "n_head": 12, "n_inner": 3072,
        "n_positions": 8192, "vocab_size": 49152, "bos_token_id": 0, "eos_token_id": 0, "multi_query": True,
    },
    "bigcode/starcoder2-3b": {
        "model_type": "starcoder2", "hidden_size": 3072, "intermediate_size": 12288,
        "num_hidden_layers": 30, "num_attention_heads": 24, "num_key_value_heads": 2, "vocab_size": 49152,
        "max_position_embeddings": 16384, "sliding_window": 4096, "use_bias": True, "mlp_type": "default",
        "bos_token_id": 0, "eos_token_id": 0,
        "norm_type": "layer_norm", "embedding_dropout": 0.1,
    },
}  # fmt: skip
SHIPPED = {name: path for name, path in recipe_names().items() if "/" in name}


def minutes(recipe: Recipe, need: MemoryNeed, text: str) -> int:
    """The card's arithmetic: operations a parameter and token, tokens a row, operations a second."""
    found = re.search(r"Minutes are (\d) x parameters x (\d+) tokens a row at ([\d.]+) TFLOP/s", text)
    assert found
    operations, tokens, rate = int(found[1]), int(found[2]), float(found[3]) * 1e12
    assert operations == (6 if recipe.engine.memory == "low" else 4)
    assert recipe.train.steps is not None
    rows = recipe.train.steps * recipe.train.batch_size
    return max(1, round(operations * need.parameters * tokens * rows / rate / 60))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_plans_and_its_card_is_what_is_predicted(name: str) -> None:
    text = SHIPPED[name].read_text("utf-8")
    recipe, card = load_recipe(SHIPPED[name]), card_fields(text)
    need = predict_memory(recipe, CONFIGS[recipe.base.model])
    assert need.trained > 10**6
    expected = {
        "peak memory": f"{need.total / GB:.1f} GB",
        "minutes": f"{minutes(recipe, need, text)} to train",
        "numbers": "predicted",
    }
    assert {label: card[label] for label in expected} == expected
    if "laptop" in card["hardware"]:
        assert need.total / GB < LAPTOP
    else:
        most = re.search(r"GPU of (\d+) GB", card["hardware"])
        assert most
        assert need.total / GB < int(most[1])


def test_every_large_recipe_has_a_laptop_variant_of_its_data() -> None:
    kinds = {name: load_recipe(path).data.train for name, path in SHIPPED.items()}
    small = {(name.split("/")[0], data) for name, data in kinds.items() if name.endswith("-laptop")}
    assert {(name.split("/")[0], data) for name, data in kinds.items()} <= small


TINY = {"name": "t", "base": {"model": "x"}, "data": {"train": "sample:lora_guide.jsonl", "format": "dolly"}}


def tiny(**sections: Any) -> Recipe:
    return Recipe.model_validate(TINY | sections)


def config_of(folder: Path) -> dict[str, Any]:
    import json

    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return config


@pytest.mark.parametrize("family", ["llama", "gpt_bigcode", "mpt"])
def test_weights_and_adapter_are_those_of_the_loaded_model(family: str, tiny_folder: Any) -> None:
    folder, recipe = tiny_folder(family), tiny()
    need = predict_memory(recipe, config_of(folder))
    files = find_base(BaseSpec(model=str(folder)))
    model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
    tensors = [*model.parameters(), *model.buffers()]
    assert need.base == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    adapted = add_adapter(model, recipe.lora, files.family, seed=0)
    assert need.trained == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_eight_bits_are_counted(tiny_folder: Any) -> None:
    pytest.importorskip("bitsandbytes")
    folder = tiny_folder("gpt_neox", hidden_size=128, intermediate_size=512)
    need = predict_memory(tiny(quantization={"method": "int8"}), config_of(folder))
    spec = QuantizationSpec(method="int8")
    files = find_base(BaseSpec(model=str(folder)))
    model = load_model(files, dtype="float32", quantization=spec, device="cpu")
    held = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    held += sum(weight.SCB.nbytes for weight in model.parameters() if weight.dtype is torch.int8)
    assert need.base == held


@pytest.mark.parametrize("variant", [{"init": "pissa"}, {"dora": True}], ids=["pissa", "dora"])
def test_a_variant_of_lora_takes_what_it_holds(variant: Any, tiny_folder: Any) -> None:
    folder, recipe = tiny_folder("llama"), tiny(lora=variant)
    plain, need = (predict_memory(one, config_of(folder)) for one in (tiny(), recipe))
    files = find_base(BaseSpec(model=str(folder)))
    model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
    adapted = add_adapter(model, recipe.lora, files.family, seed=0)
    assert need.trained == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert need.adapter == 16 * need.trained + 4 * plain.trained
    assert need.activations > plain.activations
    assert need.total > plain.total
    assert need.base == plain.base


@pytest.mark.parametrize("double", [True, False])
def test_four_bits_are_counted_as_bitsandbytes_holds_them(double: bool, tiny_folder: Any) -> None:
    pytest.importorskip("bitsandbytes")
    folder = tiny_folder("gpt_neox", hidden_size=128, intermediate_size=512)
    quantization = QuantizationSpec(method="nf4", double_quant=double)
    need = predict_memory(tiny(quantization=quantization.model_dump()), config_of(folder))
    model = load_model(
        find_base(BaseSpec(model=str(folder))), dtype="float32", quantization=quantization, device="cpu"
    )
    tensors = [*model.parameters(), *model.buffers()]
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    for module in model.modules():
        if isinstance(module, nn.Linear) and hasattr(module.weight, "quant_state"):
            state = module.weight.quant_state
            held += state.absmax.numel() * state.absmax.element_size()
            held += 4 * state.state2.absmax.numel() if double else 0
    assert need.base == pytest.approx(held, rel=2e-3)


def test_what_is_kept_grows_with_tokens_and_layers_and_shrinks_when_computed_again(tiny_folder: Any) -> None:
    config = config_of(tiny_folder("llama"))
    more = config | {"num_hidden_layers": 6}
    few, many = (tiny(train={"micro_batch_tokens": tokens}) for tokens in (128, 256))
    assert predict_memory(many, config).activations == pytest.approx(
        2 * predict_memory(few, config).activations, rel=0.2
    )
    assert predict_memory(few, more).activations > 2 * predict_memory(few, config).activations
    low = tiny(train={"micro_batch_tokens": 128}, engine={"memory": "low"})
    assert predict_memory(low, more).activations < predict_memory(few, more).activations / 2


def test_targets_that_are_not_there_are_refused_before_anything_is_fetched(tiny_folder: Any) -> None:
    with pytest.raises(ModelError, match="c_attn"):
        predict_memory(tiny(lora={"targets": ["c_attn"]}), config_of(tiny_folder("llama")))


SMOLLM2 = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip


def test_the_measured_peak_of_the_quickstart_is_near_what_is_predicted() -> None:
    path = recipe_names()["quickstart"]
    card = card_fields(path.read_text("utf-8"))
    assert card["numbers"] == "measured"
    measured = float(card["peak memory"].split()[0])
    predicted = predict_memory(load_recipe(path), SMOLLM2).total / GB
    assert 0.7 * measured < predicted < 1.5 * measured
