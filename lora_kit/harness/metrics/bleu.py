"""BLEU of one answer, smoothed, with as many orders as it has words, through sacrebleu (Papineni 2002).

Over a suite it is the mean of these, which is not corpus BLEU: that sums n-grams over all answers first, and
it is what papers quote (``text_scores.corpus_bleu``). Its tokenizer (13a) splits at spaces and punctuation,
so a text in a script without spaces is one long word.
"""

from functools import cache
from typing import Any

from lora_kit.harness.metric import Metric


@cache
def _scorer() -> Any:  # noqa: ANN401 - sacrebleu is not typed strictly
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)


def score(answer: str, reference: str) -> float:
    """Sentence BLEU, 0..100.

    Example:
        >>> score("a b c d", "a b c d")
        100.0
    """
    return min(100.0, round(float(_scorer().sentence_score(answer, [reference]).score), 10))


def signature() -> str:
    """Signature of sacrebleu's own; it exists only after a first score."""
    _scorer().sentence_score("a", ["a"])
    return f"BLEU|mean of sentences|{_scorer().get_signature()}"


METRIC = Metric("bleu", "BLEU (mean of answers)", True, score, signature)  # noqa: FBT003 - higher is better
