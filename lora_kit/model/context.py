"""How many tokens a model reads: its positions, or its window where attention is of one.

Mistral and Starcoder2 attend to a window of the last tokens. Up to its length that is plain causal attention,
which ours computes exactly, so the window ends the context; longer rows are refused, not approximated.
"""

from transformers import PretrainedConfig

from lora_kit.errors import DataError

LIMITS = ("max_position_embeddings", "max_seq_len", "sliding_window")


def context_tokens(config: PretrainedConfig) -> int | None:
    """Most tokens that a model reads; None where there is no limit (BLOOM's ALiBi)."""
    known = [limit for name in LIMITS if (limit := getattr(config, name, None)) is not None]
    return min(known) if known else None


def room(config: PretrainedConfig, prompt_tokens: int, wanted: int) -> int:
    """How many of the wanted tokens fit behind a prompt; 0 or less for a prompt that leaves no room."""
    limit = context_tokens(config)
    return wanted if limit is None else min(wanted, limit - prompt_tokens)


def check_longest(config: PretrainedConfig, longest: int) -> None:
    """Check that the longest example fits.

    Raises:
        DataError: It does not.
    """
    limit = context_tokens(config)
    if limit is not None and longest > limit:
        found = f"an example has {longest:,} tokens, and the model reads {limit:,}"
        raise DataError(
            found, key="data.max_tokens", cure=f"set it to {limit}, and say what data.overlong does"
        )
