"""Gemma, the first: LLaMA's code, a scaled embedding, a gate with GELU, norms of 1 + w (arXiv 2403.08295).

Gemma 2 and 3 cap their attention scores and mix windows among their layers; they are not supported.
"""

from lora_kit.model.family import Family

FAMILY = Family(
    name="gemma",
    model_types=("gemma",),
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    mlp=("gate_proj", "up_proj", "down_proj"),
    flattened=True,
    config_keys=frozenset(
        {
            "attention_bias", "attention_dropout", "head_dim", "hidden_act", "hidden_activation",
            "hidden_size", "initializer_range", "intermediate_size", "max_position_embeddings",
            "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps",
            "rope_parameters", "rope_scaling", "rope_theta", "tie_word_embeddings",
            "use_bidirectional_attention", "vocab_size",
        }
    ),
    fixed={"use_bidirectional_attention": (False, None), "hidden_activation": ("gelu_pytorch_tanh", None)},
    dropouts=("attention_dropout",),
)  # fmt: skip
