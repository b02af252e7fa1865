"""Every family in the catalogue knows its models' layers and config keys."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lora_kit.catalogue import FAMILIES
from lora_kit.errors import ModelError
from lora_kit.model.family import DANGEROUS_KEYS, family_of


def config_of(folder: Path, **changes: Any) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text("utf-8")) | changes


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_covers_all_linear_layers_of_its_models(
    name: str, tiny_folder: Any, open_model: Any
) -> None:
    family = FAMILIES[name]
    assert family.name == name
    model = open_model(tiny_folder(name), dtype="float32")
    head = model.get_output_embeddings()
    layers = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    assert layers == {name.rpartition(".")[2] for name in family.attention + family.mlp}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_found_from_a_config(name: str, tiny_folder: Any) -> None:
    assert family_of(config_of(tiny_folder(name)), where="config.json") is FAMILIES[name]


@pytest.mark.parametrize(
    ("family", "config"),
    [
        (
            "llama",
            {
                "_name_or_path": "x", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1,
                "eos_token_id": [128001, 128009], "is_llama_config": True, "rope_interleaved": False,
                "rope_scaling": {"rope_type": "llama3", "factor": 32.0}, "torch_dtype": "bfloat16",
                "transformers.js_config": {}, "pretraining_tp": 1, "head_dim": 64, "mlp_bias": False,
            },
        ),
        (
            "gpt_neox",
            {
                "architectures": ["GPTNeoXForCausalLM"], "rotary_emb_base": 10000, "rotary_pct": 0.25,
                "use_parallel_residual": True, "tie_word_embeddings": False, "torch_dtype": "float16",
            },
        ),
        (
            "bloom",
            {
                "architectures": ["BloomForCausalLM"], "attention_softmax_in_fp32": True, "n_embed": 64,
                "bias_dropout_fusion": True, "masked_softmax_fusion": True, "n_inner": None,
                "seq_length": 2048, "offset_alibi": 100,
                "skip_bias_add": True, "skip_bias_add_qkv": False, "unk_token_id": 0,
            },
        ),
    ],
)  # fmt: skip
def test_keys_of_published_models_are_allowed(family: str, config: dict[str, Any]) -> None:
    assert family_of({"model_type": family, **config}, where="config.json").name == family


@pytest.mark.parametrize("key", sorted(DANGEROUS_KEYS))
def test_keys_that_run_code_are_refused(key: str, tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match=rf"config\.json: {key}: refused"):
        family_of(config_of(tiny_llama, **{key: "x/y--z.Model"}), where="config.json")


def test_every_problem_is_reported_at_once(tiny_llama: Path) -> None:
    config = config_of(tiny_llama, auto_map={}, sliding_window=5, rope_scaling={"type": "dynamic"})
    with pytest.raises(ModelError) as caught:
        family_of(config, where="c")
    assert {problem.key for problem in caught.value.problems} == {
        "auto_map",
        "sliding_window",
        "rope_scaling",
    }


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"model_type": "t5"}, "model_type", "bloom, gemma, gpt_bigcode, gpt_neox, llama"),
        ({"model_type": None}, "model_type", "unsupported"),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "architectures",
            "not a causal language model",
        ),
        ({"is_encoder_decoder": True}, "architectures", "not a causal language model"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config", "nf4"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_parameters", "depends on the batch"),
    ],
)
def test_what_is_not_supported_is_named(
    changes: dict[str, Any], key: str, message: str, tiny_llama: Path
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        family_of(config_of(tiny_llama, **changes), where="config.json")
    assert caught.value.problems[0].key == key
