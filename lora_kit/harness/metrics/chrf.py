"""chrF2: F-score of character 1- to 6-grams, recall twice as heavy, through sacrebleu (Popovic 2015).

Works in every script and does not depend on a tokenizer.
"""

from functools import cache
from typing import Any

from lora_kit.harness.metric import Metric


@cache
def _scorer() -> Any:  # noqa: ANN401 - sacrebleu is not typed strictly
    from sacrebleu.metrics import CHRF

    return CHRF(char_order=6, word_order=0, beta=2)


def score(answer: str, reference: str) -> float:
    """Sentence-level chrF2, 0..100.

    Example:
        >>> score("LoRA", "LoRA")
        100.0
    """
    return min(100.0, float(_scorer().sentence_score(answer, [reference]).score))


def signature() -> str:
    """Signature of sacrebleu's own; it exists only after a first score."""
    _scorer().sentence_score("a", ["a"])
    return f"chrF2|{_scorer().get_signature()}"


METRIC = Metric("chrf", "chrF", True, score, signature)  # noqa: FBT003 - higher is better
