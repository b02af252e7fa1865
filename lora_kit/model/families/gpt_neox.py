"""GPT-NeoX, the code of Pythia: rotary on a part of each head, parallel residual (arXiv 2304.01373)."""

from lora_kit.model.family import Family

FAMILY = Family(
    name="gpt_neox",
    model_types=("gpt_neox",),
    attention=("query_key_value", "dense"),
    mlp=("dense_h_to_4h", "dense_4h_to_h"),
    flattened=True,
    config_keys=frozenset(
        {
            "attention_bias", "attention_dropout", "attention_probs_dropout_prob", "classifier_dropout",
            "hidden_act", "hidden_dropout", "hidden_dropout_prob", "hidden_size", "initializer_range",
            "intermediate_size", "layer_norm_eps", "max_position_embeddings", "num_attention_heads",
            "num_hidden_layers", "partial_rotary_factor", "rope_parameters", "rope_scaling", "rope_theta",
            "rotary_emb_base", "rotary_pct", "tie_word_embeddings", "use_parallel_residual", "vocab_size",
        }
    ),
)  # fmt: skip
