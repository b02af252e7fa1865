"""ROUGE-L F: longest common subsequence of Porter-stemmed words, through rouge-score (Lin 2004).

Its tokenizer lower-cases and deletes every character outside a-z and 0-9, so that two
identical Chinese texts score 0: ``coverage`` says how much of a text it sees. It rewards
copying a style, so it is a signal of drift rather than of quality.
"""

import re
from functools import cache
from importlib.metadata import version
from typing import Any

from lora_kit.harness.metric import Metric


@cache
def _scorer() -> Any:  # noqa: ANN401 - rouge-score has no types
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def score(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence, 0..100.

    Example:
        >>> round(score("The cats sat.", "the cat sat on the mat"), 1)
        66.7
    """
    return 100.0 * float(_scorer().score(reference, answer)["rougeL"].fmeasure)


def signature() -> str:
    """Library, version and settings."""
    return f"rougeL|f|stemmer:porter|tok:a-z0-9|rouge-score:{version('rouge-score')}"


def coverage(text: str) -> float:
    """Share of the letters and digits that the tokenizer keeps; 1 for a text that has none.

    Example:
        >>> coverage("LoRA"), coverage("低秩")
        (1.0, 0.0)
    """
    visible = [character for character in text.lower() if character.isalnum()]
    kept = re.findall("[a-z0-9]", "".join(visible))
    return len(kept) / len(visible) if visible else 1.0


METRIC = Metric("rouge_l", "ROUGE-L", True, score, signature, coverage)  # noqa: FBT003 - higher is better
