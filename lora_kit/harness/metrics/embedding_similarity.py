"""Cosine of sentence embeddings of answer and reference (Sentence-BERT, arXiv 1908.10084), an optional extra.

It forgives other words and also forgives wrong numbers and a missing "not". Texts are cut where the model
stops reading (256 tokens). Tested with a stand-in for the library; the real model has not been run here.
"""

from functools import cache
from importlib.metadata import version
from typing import Any

from lora_kit.harness.metric import Metric

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@cache
def _model() -> Any:  # noqa: ANN401 - an optional library without types
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(MODEL)


def score(answer: str, reference: str) -> float:
    """Cosine, 0..100; opposite directions count as 0."""
    if not answer.strip():
        return 0.0
    ours, theirs = _model().encode([answer, reference], normalize_embeddings=True)
    cosine = sum(float(a) * float(b) for a, b in zip(ours, theirs, strict=True))
    return 100.0 * min(1.0, max(0.0, cosine))


def signature() -> str:
    """Model and library."""
    return f"cosine|{MODEL}|sentence-transformers:{version('sentence-transformers')}"


METRIC = Metric(
    "embedding_similarity",
    "embedding similarity",
    True,  # noqa: FBT003 - higher is better
    score,
    signature,
    extra="embedding",
    module="sentence_transformers",
)
