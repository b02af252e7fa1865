"""LLaMA and what shares its code (SmolLM2, TinyLlama): rotary positions, RMSNorm, SwiGLU."""

from lora_kit.model.family import Family

FAMILY = Family(
    name="llama",
    model_types=("llama",),
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    mlp=("gate_proj", "up_proj", "down_proj"),
    flattened=True,
    config_keys=frozenset(
        {
            "attention_bias", "attention_dropout", "head_dim", "hidden_act", "hidden_size",
            "initializer_range", "intermediate_size", "is_llama_config", "max_position_embeddings",
            "max_sequence_length", "mlp_bias", "num_attention_heads", "num_hidden_layers",
            "num_key_value_heads", "pretraining_tp", "rms_norm_eps", "rope_interleaved", "rope_parameters",
            "rope_scaling", "rope_theta", "tie_word_embeddings", "vocab_size",
        }
    ),
)  # fmt: skip
