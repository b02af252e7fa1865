"""GPT-NeoX (Pythia, Dolly 2, StableLM-Alpha) in GGUF: fused heads become all q, all k, all v.

Facts: ``GPTNeoXModel`` in ``conversion/gptneox.py`` of github.com/ggml-org/llama.cpp. llama.cpp computes
its GELU by the tanh formula, through a table of float16, where Pythia has the exact one.
"""

from lora_kit.export.gguf.architecture import (
    Architecture,
    Config,
    RowOrder,
    Scalar,
    activation_refusal,
    heads_to_blocks,
    rotary,
    rotary_refusal,
    sizes,
)


def metadata(config: Config) -> dict[str, Scalar]:
    """The numbers of the architecture."""
    head = config["hidden_size"] // config["num_attention_heads"]
    share = config["rope_parameters"].get("partial_rotary_factor", 1.0)
    return {
        **sizes(config),
        "attention.layer_norm_epsilon": float(config["layer_norm_eps"]),
        "use_parallel_residual": bool(config["use_parallel_residual"]),
        "rope.dimension_count": int(share * head),
        **rotary(config),
    }


def row_order(config: Config, name: str) -> RowOrder | None:
    """The fused projection has its rows by head."""
    if ".query_key_value." not in name:
        return None
    return heads_to_blocks(config["num_attention_heads"], 3 * config["hidden_size"])


def refusal(config: Config) -> str:
    """llama.cpp has one activation for it, and insists on biases."""
    if not config.get("attention_bias", True):
        return "attention without biases (llama.cpp's gptneox has them)"
    return activation_refusal(config, known="gelu") or rotary_refusal(config)


ARCHITECTURE = Architecture("gptneox", metadata, row_order, refusal, needs_output=True)
