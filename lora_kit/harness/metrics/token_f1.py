"""Token F1 of SQuAD: harmonic mean of precision and recall over bags of normalised words (arXiv 1606.05250).

Lower case, without punctuation and English articles. For short answers; order doesn't count.
"""

from lora_kit.harness import text_scores
from lora_kit.harness.metric import Metric


def score(answer: str, reference: str) -> float:
    """F1, 0..100.

    Example:
        >>> score("The cat sat.", "a cat ran")
        50.0
    """
    return 100.0 * text_scores.token_f1(answer, reference) if answer.strip() else 0.0


def signature() -> str:
    """How words are made alike."""
    return "token F1|SQuAD 1.1: lower case, no punctuation, no a/an/the, split at spaces"


METRIC = Metric("token_f1", "token F1", True, score, signature)  # noqa: FBT003 - higher is better
