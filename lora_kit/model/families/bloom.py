"""BLOOM: ALiBi instead of positions, layer norm after the embedding (arXiv 2211.05100).

transformers builds ALiBi from the attention mask of a padded batch, so rows can't be laid end to end.
"""

from lora_kit.model.family import Family

FAMILY = Family(
    name="bloom",
    model_types=("bloom",),
    attention=("query_key_value", "dense"),
    mlp=("dense_h_to_4h", "dense_4h_to_h"),
    flattened=False,
    config_keys=frozenset(
        {
            "apply_residual_connection_post_layernorm", "attention_dropout", "attention_softmax_in_fp32",
            "bias_dropout_fusion", "hidden_dropout", "hidden_size", "initializer_range", "layer_norm_epsilon",
            "masked_softmax_fusion", "n_embed", "n_head", "n_inner", "n_layer", "num_attention_heads",
            "num_hidden_layers", "offset_alibi", "pretraining_tp", "seq_length", "skip_bias_add",
            "skip_bias_add_qkv", "slow_but_exact", "tie_word_embeddings", "vocab_size",
        }
    ),
)  # fmt: skip
