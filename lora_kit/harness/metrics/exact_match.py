"""Exact match of SQuAD: 100 if answer and reference are the same words in order (arXiv 1606.05250).

Lower case, without punctuation and English articles.
"""

from lora_kit.harness import text_scores
from lora_kit.harness.metric import Metric


def score(answer: str, reference: str) -> float:
    """0 or 100.

    Example:
        >>> score("The Arel.", "arel")
        100.0
    """
    return 100.0 * text_scores.exact_match(answer, reference) if answer.strip() else 0.0


def signature() -> str:
    """How texts are made alike."""
    return "exact match|SQuAD 1.1: lower case, no punctuation, no a/an/the"


METRIC = Metric("exact_match", "exact match", True, score, signature)  # noqa: FBT003 - higher is better
