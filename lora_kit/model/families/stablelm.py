"""StableLM 3B and 2: LLaMA's layers with layer norms, rotary on a part of each head (arXiv 2402.17834)."""

from lora_kit.model.family import Family

FAMILY = Family(
    name="stablelm",
    model_types=("stablelm",),
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    mlp=("gate_proj", "up_proj", "down_proj"),
    flattened=True,
    config_keys=frozenset(
        {
            "attention_dropout", "hidden_act", "hidden_dropout", "hidden_size", "initializer_range",
            "intermediate_size", "layer_norm_eps", "max_position_embeddings", "num_attention_heads",
            "num_heads", "num_hidden_layers", "num_key_value_heads", "partial_rotary_factor", "qk_layernorm",
            "rope_parameters", "rope_pct", "rope_scaling", "rope_theta", "rotary_scaling_factor",
            "tie_word_embeddings", "use_parallel_residual", "use_qkv_bias", "vocab_size",
        }
    ),
    fixed={"rotary_scaling_factor": (1.0, 1)},
    dropouts=("attention_dropout", "hidden_dropout"),
)  # fmt: skip
