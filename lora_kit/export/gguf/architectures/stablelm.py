"""StableLM 2 and StableLM-3B in GGUF: rotary on a part of each head, rows as transformers has them.

Facts: ``StableLMModel`` in ``conversion/stablelm.py`` of github.com/ggml-org/llama.cpp.
"""

from lora_kit.export.gguf.architecture import (
    Architecture,
    Config,
    Scalar,
    activation_refusal,
    grouped_sizes,
    rotary,
    rotary_refusal,
)


def metadata(config: Config) -> dict[str, Scalar]:
    """The numbers of the architecture."""
    head = config["hidden_size"] // config["num_attention_heads"]
    return {
        **grouped_sizes(config),
        "attention.layer_norm_epsilon": float(config["layer_norm_eps"]),
        "use_parallel_residual": bool(config["use_parallel_residual"]),
        "rope.dimension_count": int(config["rope_parameters"]["partial_rotary_factor"] * head),
        **rotary(config),
    }


def refusal(config: Config) -> str:
    """The norms per head of StableLM 2 12B are not written."""
    if config.get("qk_layernorm"):
        return "query and key norms per head"
    return activation_refusal(config) or rotary_refusal(config)


ARCHITECTURE = Architecture("stablelm", metadata, refusal=refusal, needs_output=True)
