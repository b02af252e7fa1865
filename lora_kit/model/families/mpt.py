"""MPT: ALiBi, one matrix for query, key and value, no biases (https://www.databricks.com/blog/mpt-7b).

transformers' own code runs, never the one in the model's folder that ``auto_map`` points to. It always has
ALiBi over 8 bits and a feed-forward block of four times the width, whatever the config says, so that other
values are refused. It builds ALiBi itself, for one row, so rows can't be laid end to end.
"""

from lora_kit.model.family import Family

FAMILY = Family(
    name="mpt",
    model_types=("mpt",),
    attention=("Wqkv", "out_proj"),
    mlp=("up_proj", "down_proj"),
    flattened=False,
    config_keys=frozenset(
        {
            "attn_config", "attn_config.alibi", "attn_config.alibi_bias_max", "attn_config.attn_impl",
            "attn_config.attn_pdrop", "attn_config.attn_type", "attn_config.attn_uses_sequence_id",
            "attn_config.chunk_size_feed_forward", "attn_config.clip_qkv", "attn_config.output_attentions",
            "attn_config.output_hidden_states", "attn_config.prefix_lm", "attn_config.qk_ln",
            "attn_config.return_dict", "attn_config.softmax_scale",
            "d_model", "emb_pdrop", "expansion_ratio", "initializer_range", "layer_norm_epsilon",
            "learned_pos_emb", "logit_scale", "max_seq_len", "n_heads", "n_layers", "no_bias", "norm_type",
            "resid_pdrop", "tie_word_embeddings", "vocab_size",
        }
    ),
    fixed={
        "attn_config.alibi": (True,),
        "attn_config.alibi_bias_max": (8,),
        "attn_config.attn_pdrop": (0, 0.0),
        "attn_config.attn_type": ("multihead_attention",),
        "attn_config.attn_uses_sequence_id": (False,),
        "attn_config.prefix_lm": (False,),
        "attn_config.qk_ln": (False,),
        "expansion_ratio": (4,),
        "logit_scale": (None,),
        "no_bias": (True,),
        "norm_type": ("low_precision_layernorm", "layernorm"),
    },
    # How the published models were made and run, and where their own code is.
    dropped=frozenset(
        {
            "auto_map", "embedding_fraction", "fc_type", "ffn_config", "init_config", "init_device",
            "tokenizer_name", "use_pad_tok_in_ffn", "verbose",
        }
    ),
    dropouts=("emb_pdrop", "resid_pdrop"),
)  # fmt: skip
