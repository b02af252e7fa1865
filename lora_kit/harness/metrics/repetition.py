"""How much an answer repeats itself: the share of its 4-grams of words that are not new.

``1 - different 4-grams / 4-grams`` within one answer: seq-rep-4 of Welleck et al. 2019 (arXiv 1908.04319),
on words rather than tokens, so that models with different tokenizers can be compared. A person's text is
near 0, a loop near 100. A loop of punctuation has no words and is not seen.
"""

from lora_kit.harness import text_scores
from lora_kit.harness.metric import Metric

N = 4


def score(answer: str, _: str) -> float:
    """Share of repeated 4-grams, 0..100; 0 for an answer that is too short to have one.

    Example:
        >>> score("to be or not to be or not", "")
        20.0
    """
    grams = text_scores.word_ngrams(answer, N)
    return 100.0 * (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


def signature() -> str:
    """What is counted."""
    return f"seq-rep-{N}|words, lower case"


METRIC = Metric("repetition", "repeated 4-grams", False, score, signature, compares=False)  # noqa: FBT003
