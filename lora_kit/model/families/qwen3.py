"""Qwen3: LLaMA's code with a norm on each head of q and k (arXiv 2505.09388)."""

from lora_kit.model.family import Family

FAMILY = Family(
    name="qwen3",
    model_types=("qwen3",),
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    mlp=("gate_proj", "up_proj", "down_proj"),
    flattened=True,
    config_keys=frozenset(
        {
            "attention_bias", "attention_dropout", "head_dim", "hidden_act", "hidden_size",
            "initializer_range", "intermediate_size", "layer_types", "max_position_embeddings",
            "max_window_layers", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
            "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta", "sliding_window",
            "tie_word_embeddings", "use_sliding_window", "vocab_size",
        }
    ),
    dropouts=("attention_dropout",),
)  # fmt: skip
