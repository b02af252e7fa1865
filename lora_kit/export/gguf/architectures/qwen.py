"""Qwen2 and Qwen3 in GGUF: LLaMA's numbers, rows as transformers has them.

Facts: ``Qwen2Model`` and ``Qwen3Model`` in ``conversion/qwen.py`` of github.com/ggml-org/llama.cpp.
"""

from lora_kit.export.gguf.architecture import Architecture, Config, Scalar, rotary, rotary_refusal


def metadata(config: Config) -> dict[str, Scalar]:
    """The numbers of the architecture."""
    head = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    return {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        **rotary(config),
    }


def refusal(config: Config) -> str:
    """Sliding windows and yarn are not written."""
    return "its sliding window" if config.get("use_sliding_window") else rotary_refusal(config)


QWEN2 = Architecture("qwen2", metadata, refusal=refusal)
QWEN3 = Architecture("qwen3", metadata, refusal=refusal)
