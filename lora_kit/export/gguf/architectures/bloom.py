"""BLOOM in GGUF: fused heads become all q, all k, all v; ALiBi is built in.

Facts: ``BloomModel`` in ``conversion/bloom.py`` of github.com/ggml-org/llama.cpp.
"""

from lora_kit.export.gguf.architecture import Architecture, Config, RowOrder, Scalar, heads_to_blocks


def metadata(config: Config) -> dict[str, Scalar]:
    """The numbers of the architecture; the context of BLOOM's training where config.json has none."""
    return {
        "context_length": config.get("seq_length") or 2048,
        "embedding_length": config["hidden_size"],
        "feed_forward_length": 4 * config["hidden_size"],
        "block_count": config["n_layer"],
        "attention.head_count": config["n_head"],
        "attention.head_count_kv": config["n_head"],
        "attention.layer_norm_epsilon": float(config["layer_norm_epsilon"]),
    }


def row_order(config: Config, name: str) -> RowOrder | None:
    """The fused projection has its rows by head."""
    if ".query_key_value." not in name:
        return None
    return heads_to_blocks(config["n_head"], 3 * config["hidden_size"])


def refusal(config: Config) -> str:
    """llama.cpp adds the residual before the norm."""
    return (
        "apply_residual_connection_post_layernorm"
        if config.get("apply_residual_connection_post_layernorm")
        else ""
    )


ARCHITECTURE = Architecture("bloom", metadata, row_order, refusal, dropped_prefix="transformer.")
