"""StarCoder 2 in GGUF: rotary positions, rows as transformers has them.

Facts: ``StarCoder2Model`` in ``conversion/starcoder.py`` of github.com/ggml-org/llama.cpp.
"""

from lora_kit.export.gguf.architecture import Architecture, Config, Scalar, rotary, rotary_refusal


def metadata(config: Config) -> dict[str, Scalar]:
    """The numbers of the architecture."""
    return {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_epsilon": float(config["norm_epsilon"]),
        **rotary(config),
    }


def refusal(config: Config) -> str:
    """llama.cpp's code for it attends to the whole context, and has biases."""
    window = config.get("sliding_window")
    if window and window < config["max_position_embeddings"]:
        return f"a sliding window of {window} tokens below the context of {config['max_position_embeddings']}"
    return rotary_refusal(config) if config.get("use_bias", True) else "layers without biases"


ARCHITECTURE = Architecture("starcoder2", metadata, refusal=refusal)
