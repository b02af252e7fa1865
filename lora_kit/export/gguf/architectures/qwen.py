"""Qwen2 and Qwen3 in GGUF: LLaMA's numbers, rows as transformers has them.

Facts: ``Qwen2Model`` and ``Qwen3Model`` in ``conversion/qwen.py`` of github.com/ggml-org/llama.cpp.
"""

from lora_kit.export.gguf.architecture import Architecture, Config, Scalar, rms_sizes, rotary, rotary_refusal


def metadata(config: Config) -> dict[str, Scalar]:
    """The numbers of the architecture."""
    return {**rms_sizes(config), **rotary(config)}


def refusal(config: Config) -> str:
    """Sliding windows and yarn are not written."""
    return "its sliding window" if config.get("use_sliding_window") else rotary_refusal(config)


QWEN2 = Architecture("qwen2", metadata, refusal=refusal)
QWEN3 = Architecture("qwen3", metadata, refusal=refusal)
