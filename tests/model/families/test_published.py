"""What published configs say beside the architecture, and what would be computed wrongly in silence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit.errors import DataError, ModelError
from lora_kit.model.context import check_longest, context_tokens
from lora_kit.model.family import family_of

MPT_ATTENTION = {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0, "clip_qkv": None}


@pytest.mark.parametrize(
    "config",
    [
        {
            "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 4096,
            "rope_theta": 10000.0, "torch_dtype": "bfloat16", "head_dim": 128, "tie_word_embeddings": False,
        },
        {
            "model_type": "qwen2", "max_window_layers": 21, "use_sliding_window": False,
            "sliding_window": 32768, "use_mrope": False, "rope_theta": 1000000.0, "rms_norm_eps": 1e-06,
        },
        {
            "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "max_window_layers": 28,
            "rope_scaling": None, "use_sliding_window": False, "sliding_window": None,
        },
        {"model_type": "gemma", "hidden_act": "gelu", "hidden_activation": None, "head_dim": 256},
        {
            "model_type": "stablelm", "use_qkv_bias": True, "partial_rotary_factor": 0.25,
            "hidden_dropout": 0.0, "qk_layernorm": False, "use_parallel_residual": False, "rope_theta": 10000,
        },
        {
            "model_type": "starcoder2", "activation_function": "gelu", "mlp_type": "default",
            "norm_type": "layer_norm", "embedding_dropout": 0.1, "scale_attn_weights": True,
        },
        {
            "model_type": "gpt_bigcode", "inference_runner": 0, "max_batch_size": None,
            "pre_allocate_kv_cache": False, "summary_type": "cls_index", "validate_runner_input": True,
        },
        {
            "model_type": "mpt", "auto_map": {"AutoConfig": "configuration_mpt.MPTConfig"}, "verbose": 0,
            "attn_config": MPT_ATTENTION, "init_config": {"name": "kaiming_normal_"}, "init_device": "cpu",
            "no_bias": True, "norm_type": "low_precision_layernorm", "tokenizer_name": "EleutherAI/x",
        },
    ],
    ids=lambda config: str(config["model_type"]),
)  # fmt: skip
def test_keys_of_published_models_are_known(config: dict[str, Any]) -> None:
    assert config["model_type"] in family_of(config, where="config.json").model_types


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"model_type": "mpt", "attn_config": MPT_ATTENTION | {"alibi": False}}, "attn_config.alibi"),
        ({"model_type": "mpt", "attn_config": MPT_ATTENTION | {"qk_ln": True}}, "attn_config.qk_ln"),
        (
            {"model_type": "mpt", "attn_config": MPT_ATTENTION | {"alibi_bias_max": 16}},
            "attn_config.alibi_bias_max",
        ),
        ({"model_type": "mpt", "attn_config": MPT_ATTENTION | {"canary": "x"}}, "attn_config.canary"),
        ({"model_type": "mpt", "no_bias": False}, "no_bias"),
        ({"model_type": "mpt", "expansion_ratio": 2}, "expansion_ratio"),
        ({"model_type": "mpt", "logit_scale": "inv_sqrt_d_model"}, "logit_scale"),
        ({"model_type": "gpt_bigcode", "add_cross_attention": True}, "add_cross_attention"),
        ({"model_type": "starcoder2", "mlp_type": "gated"}, "mlp_type"),
        ({"model_type": "gemma", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"model_type": "gemma2"}, "model_type"),
        ({"model_type": "qwen2", "auto_map": {}}, "auto_map"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_code_would_ignore_is_refused(config: dict[str, Any], key: str) -> None:
    with pytest.raises(ModelError) as caught:
        family_of(config, where="config.json")
    assert [problem.key for problem in caught.value.problems] == [key]


def edited(folder: Path, target: Path, **changes: Any) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text("utf-8"))
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


def test_the_code_in_a_folder_of_mpt_is_never_run(
    tiny_folder: Callable[..., Path], open_model: Callable[..., Any], tmp_path: Path
) -> None:
    map_to = {"AutoConfig": "canary.MPTConfig", "AutoModelForCausalLM": "canary.MPTForCausalLM"}
    folder = edited(tiny_folder("mpt"), tmp_path / "mpt", auto_map=map_to)
    (folder / "canary.py").write_text("raise SystemExit('executed')")
    model = open_model(folder)
    assert type(model).__module__ == "transformers.models.mpt.modeling_mpt"
    assert not hasattr(model.config, "auto_map")


def test_dropout_inside_the_base_is_off(
    tiny_folder: Callable[..., Path], open_model: Callable[..., Any], tmp_path: Path
) -> None:
    import torch

    rates = {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5}
    model = open_model(edited(tiny_folder("gpt_bigcode"), tmp_path / "bigcode", **rates)).train()
    ids = torch.tensor([[5, 6, 7, 8]])
    one, two = (model(input_ids=ids, use_cache=False).logits for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("family", "sizes", "limit"),
    [
        ("llama", {}, 256),
        ("mistral", {"sliding_window": 64}, 64),
        ("mistral", {"sliding_window": None}, 256),
        ("qwen2", {"sliding_window": 64}, 256),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": True}, 64),
        ("starcoder2", {"sliding_window": 100}, 100),
        ("gpt_bigcode", {}, 256),
        ("mpt", {}, 256),
        ("bloom", {}, None),
    ],
)
def test_the_context_ends_at_positions_or_window(
    family: str, sizes: dict[str, Any], limit: int | None, tiny_folder: Any, open_model: Any
) -> None:
    config = open_model(tiny_folder(family, **sizes), dtype="float32").config
    assert context_tokens(config) == limit
    check_longest(config, limit or 10**6)
    if limit:
        with pytest.raises(DataError, match=rf"reads {limit}.*set it to {limit}"):
            check_longest(config, limit + 1)
