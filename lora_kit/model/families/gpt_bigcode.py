"""GPTBigCode, StarCoder's code: learned positions, one key-value head for all queries (arXiv 2305.06161)."""

from lora_kit.model.family import Family

FAMILY = Family(
    name="gpt_bigcode",
    model_types=("gpt_bigcode",),
    attention=("c_attn", "attn.c_proj"),
    mlp=("c_fc", "mlp.c_proj"),
    flattened=True,
    config_keys=frozenset(
        {
            "activation_function", "add_cross_attention", "attention_softmax_in_fp32", "attn_pdrop",
            "embd_pdrop", "initializer_range", "layer_norm_epsilon", "multi_query", "n_embd", "n_head",
            "n_inner", "n_layer", "n_positions", "num_key_value_heads", "resid_pdrop",
            "scale_attention_softmax_in_fp32", "scale_attn_weights", "tie_word_embeddings", "vocab_size",
        }
    ),
    fixed={"add_cross_attention": (False,)},
    # How the published models were served, and what GPT-2 needs as a classifier.
    dropped=frozenset(
        {
            "inference_runner", "max_batch_size", "max_sequence_length", "n_ctx", "pad_key_length",
            "pre_allocate_kv_cache", "reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx",
            "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
            "summary_use_proj", "validate_runner_input",
        }
    ),
    dropouts=("attn_pdrop", "embd_pdrop", "resid_pdrop"),
)  # fmt: skip
