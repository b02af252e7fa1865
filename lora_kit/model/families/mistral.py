"""Mistral: LLaMA's code with a sliding window, which ends the context here (arXiv 2310.06825)."""

from lora_kit.model.family import Family

FAMILY = Family(
    name="mistral",
    model_types=("mistral",),
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    mlp=("gate_proj", "up_proj", "down_proj"),
    flattened=True,
    config_keys=frozenset(
        {
            "attention_dropout", "head_dim", "hidden_act", "hidden_size", "initializer_range",
            "intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
            "num_key_value_heads", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta",
            "sliding_window", "tie_word_embeddings", "vocab_size",
        }
    ),
    dropouts=("attention_dropout",),
)  # fmt: skip
