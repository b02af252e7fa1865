"""StarCoder 2 in GGUF: rotary positions, rows as transformers has them.

Facts: ``StarCoder2Model`` in ``conversion/starcoder.py`` of github.com/ggml-org/llama.cpp.
"""

from lora_kit.export.gguf.architecture import (
    Architecture,
    Config,
    Scalar,
    grouped_sizes,
    rotary,
    rotary_refusal,
    window_refusal,
)


def metadata(config: Config) -> dict[str, Scalar]:
    """The numbers of the architecture."""
    return {
        **grouped_sizes(config),
        "attention.layer_norm_epsilon": float(config["norm_epsilon"]),
        **rotary(config),
    }


def refusal(config: Config) -> str:
    """llama.cpp's code for it attends to the whole context, and has biases."""
    own = window_refusal(config) or ("" if config.get("use_bias", True) else "layers without biases")
    return own or rotary_refusal(config)


ARCHITECTURE = Architecture("starcoder2", metadata, refusal=refusal)
