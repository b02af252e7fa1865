"""Starcoder2: rotary positions, biases, a plain feed-forward block, a sliding window (arXiv 2402.19173)."""

from lora_kit.model.family import Family

FAMILY = Family(
    name="starcoder2",
    model_types=("starcoder2",),
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    mlp=("c_fc", "c_proj"),
    flattened=True,
    config_keys=frozenset(
        {
            "activation_function", "attention_dropout", "attention_softmax_in_fp32", "embedding_dropout",
            "hidden_act", "hidden_size", "initializer_range", "intermediate_size", "layer_norm_epsilon",
            "max_position_embeddings", "mlp_type", "norm_epsilon", "norm_type", "num_attention_heads",
            "num_hidden_layers", "num_key_value_heads", "residual_dropout", "rope_parameters", "rope_scaling",
            "rope_theta", "scale_attention_softmax_in_fp32", "scale_attn_weights", "sliding_window",
            "tie_word_embeddings", "use_bias", "vocab_size",
        }
    ),
    fixed={"mlp_type": ("default",), "norm_type": ("layer_norm",), "scale_attn_weights": (True,)},
    dropouts=("attention_dropout", "embedding_dropout", "residual_dropout"),
)  # fmt: skip
