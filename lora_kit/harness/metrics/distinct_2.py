"""distinct-2: different pairs of neighbours over words, within one answer (Li et al., arXiv 1510.03055).

It falls as answers get longer, also where nothing is wrong with them, so it has no better side: compare
models whose answers are of like length, and read repetition for loops.
"""

from lora_kit.harness import text_scores
from lora_kit.harness.metric import Metric


def score(answer: str, _: str) -> float:
    """Different bigrams for each hundred words; 0 for less than two words.

    Example:
        >>> score("no no no no", "")
        25.0
    """
    words = text_scores.word_ngrams(answer, 1)
    return 100.0 * len(set(text_scores.word_ngrams(answer, 2))) / len(words) if words else 0.0


def signature() -> str:
    """What is counted."""
    return "distinct-2|per answer|words, lower case"


METRIC = Metric("distinct_2", "distinct-2", None, score, signature, compares=False)
