"""GPTBigCode (StarCoder, SantaCoder) in GGUF: learned positions, all queries and one key and value.

Facts: ``StarCoderModel`` in ``conversion/starcoder.py`` of github.com/ggml-org/llama.cpp.
"""

from lora_kit.export.gguf.architecture import (
    Architecture,
    Config,
    RowOrder,
    Scalar,
    activation_refusal,
    heads_to_blocks,
)


def metadata(config: Config) -> dict[str, Scalar]:
    """The numbers of the architecture."""
    return {
        "context_length": config["n_positions"],
        "embedding_length": config["n_embd"],
        "feed_forward_length": config.get("n_inner") or 4 * config["n_embd"],
        "block_count": config["n_layer"],
        "attention.head_count": config["n_head"],
        "attention.head_count_kv": 1 if config["multi_query"] else config["n_head"],
        "attention.layer_norm_epsilon": float(config["layer_norm_epsilon"]),
    }


def row_order(config: Config, name: str) -> RowOrder | None:
    """Without multi-query attention the fused projection has its rows by head."""
    if config["multi_query"] or ".attn.c_attn." not in name:
        return None
    return heads_to_blocks(config["n_head"], 3 * config["n_embd"])


def refusal(config: Config) -> str:
    """llama.cpp has one activation for it, and always scales by the size of a head."""
    own = "" if config.get("scale_attn_weights", True) else "attention that is not scaled"
    return activation_refusal(config, "activation_function", "gelu") or own


ARCHITECTURE = Architecture("starcoder", metadata, row_order, refusal)
