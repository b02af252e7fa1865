"""LLaMA and Mistral in GGUF: rotary pairs side by side; Llama 3's scaling becomes a factor per frequency.

Facts: ``LlamaModel`` in ``conversion/llama.py`` of github.com/ggml-org/llama.cpp.
"""

from math import pi

import numpy as np

from lora_kit.export.gguf.architecture import (
    Architecture,
    Config,
    Floats,
    RowOrder,
    Scalar,
    activation_refusal,
    halves_to_pairs,
    head_size,
    rms_sizes,
    rotary,
    rotary_refusal,
    window_refusal,
)


def metadata(config: Config) -> dict[str, Scalar]:
    """The numbers of the architecture."""
    return {
        "vocab_size": config["vocab_size"],
        **rms_sizes(config),
        "rope.dimension_count": head_size(config),
        **rotary(config),
    }


def row_order(config: Config, name: str) -> RowOrder | None:
    """Queries and keys are rotated, so their rows are paired."""
    for part, key in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
        if f".{part}." in name:
            return halves_to_pairs(config[key], config[key] * head_size(config))
    return None


def refusal(config: Config) -> str:
    """llama.cpp's LLaMA has one activation, one attention window, and no yarn of ours."""
    own = activation_refusal(config) or window_refusal(config)
    return own or rotary_refusal(config, ("default", "linear", "llama3"))


def rotary_factors(config: Config) -> Floats | None:
    """Llama 3.1's scaling: long wavelengths slowed by ``factor``, short ones kept, those between blended.

    Source: ``_compute_llama3_parameters`` in ``modeling_rope_utils.py`` of transformers.
    """
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") != "llama3":
        return None
    head = head_size(config)
    wavelength = 2 * pi * rope["rope_theta"] ** (np.arange(0, head, 2, dtype=np.float64) / head)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    share = (rope["original_max_position_embeddings"] / wavelength - low) / (high - low)
    share = share.clip(0, 1)
    factors: Floats = (1 / ((1 - share) / factor + share)).astype(np.float32)
    return factors


ARCHITECTURE = Architecture("llama", metadata, row_order, refusal, rotary_factors)
