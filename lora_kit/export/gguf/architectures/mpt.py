"""MPT in GGUF: q, k and v are already one after another; ALiBi and clipping are numbers.

Facts: ``MPTModel`` in ``conversion/mpt.py`` of github.com/ggml-org/llama.cpp. llama.cpp computes its GELU by
the tanh formula, through a table of float16, where MPT has the exact one.
"""

from lora_kit.export.gguf.architecture import Architecture, Config, Scalar


def metadata(config: Config) -> dict[str, Scalar]:
    """The numbers of the architecture."""
    attention = config["attn_config"]
    clip = attention.get("clip_qkv")
    return {
        "context_length": config["max_seq_len"],
        "embedding_length": config["d_model"],
        "block_count": config["n_layers"],
        "feed_forward_length": config["expansion_ratio"] * config["d_model"],
        "attention.head_count": config["n_heads"],
        "attention.layer_norm_epsilon": float(config.get("layer_norm_epsilon", 1e-5)),
        "attention.max_alibi_bias": float(attention["alibi_bias_max"]),
        **({"attention.clamp_kqv": float(clip)} if clip else {}),
    }


def refusal(config: Config) -> str:
    """Transformers' MPT has ALiBi always, and llama.cpp scales by the size of a head."""
    attention = config["attn_config"]
    if not attention.get("alibi", True):
        return "positions without ALiBi"
    if attention.get("softmax_scale") is not None:
        return "a softmax_scale of its own"
    return "query and key norms" if attention.get("qk_ln") else ""


ARCHITECTURE = Architecture("mpt", metadata, refusal=refusal)
