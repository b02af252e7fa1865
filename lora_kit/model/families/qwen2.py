"""Qwen2 and Qwen2.5: LLaMA's code with biases on q, k and v (arXiv 2407.10671)."""

from lora_kit.model.family import Family

FAMILY = Family(
    name="qwen2",
    model_types=("qwen2",),
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    mlp=("gate_proj", "up_proj", "down_proj"),
    flattened=True,
    config_keys=frozenset(
        {
            "attention_dropout", "hidden_act", "hidden_size", "initializer_range", "intermediate_size",
            "layer_types", "max_position_embeddings", "max_window_layers", "num_attention_heads",
            "num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "rope_parameters", "rope_scaling",
            "rope_theta", "sliding_window", "tie_word_embeddings", "use_mrope", "use_sliding_window",
            "vocab_size",
        }
    ),
    fixed={"use_mrope": (False,)},
    dropouts=("attention_dropout",),
)  # fmt: skip
