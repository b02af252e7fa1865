"""Reference-based text scores of whole corpora: BLEU, chrF++, all of ROUGE, token F1, exact match.

Thin wrappers of sacrebleu and rouge-score with their signatures; token F1 and exact match
are SQuAD's. Texts come as lists of answers and references of one length.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

ROUGE_KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
# A word, or one character of a script that sets no spaces between words.
_WORD = re.compile(r"[\u2e80-\U0003ffff]|[^\W\u2e80-\U0003ffff]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def corpus_bleu(answers: Sequence[str], references: Sequence[str]) -> dict[str, float | str]:
    """Corpus BLEU with brevity penalty, lengths in tokens and signature."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU()
    found = bleu.corpus_score(list(answers), [list(references)])
    return {
        "bleu": float(found.score),
        "bleu_bp": float(found.bp),
        "bleu_sys_len": int(found.sys_len),
        "bleu_ref_len": int(found.ref_len),
        "bleu_signature": str(bleu.get_signature()),
    }


def sentence_bleu(answer: str, reference: str) -> float:
    """Sentence BLEU with effective order, 0..100."""
    from sacrebleu.metrics import BLEU

    return float(BLEU(effective_order=True).sentence_score(answer, [reference]).score)


def corpus_chrf(answers: Sequence[str], references: Sequence[str], *, word_order: int) -> tuple[float, str]:
    """Corpus chrF2 (``word_order`` 0) or chrF++ (2), and its signature."""
    from sacrebleu.metrics import CHRF

    chrf = CHRF(char_order=6, word_order=word_order, beta=2)
    score = float(chrf.corpus_score(list(answers), [list(references)]).score)
    return score, str(chrf.get_signature())


def rouge_f(answer: str, reference: str, *, stemmer: bool) -> dict[str, float]:
    """F-measure of each ROUGE kind, 0..1."""
    return dict(zip(ROUGE_KINDS, _rouge_f(answer, reference, stemmer), strict=True))


def token_f1(answer: str, reference: str) -> float:
    """SQuAD's F1 over bags of normalised words, 0..1.

    Example:
        >>> token_f1("The cat sat.", "a cat ran")
        0.5
    """
    ours, theirs = _normalised(answer).split(), _normalised(reference).split()
    common = (Counter(ours) & Counter(theirs)).total()
    if not ours or not theirs:
        return float(ours == theirs)
    return 2.0 * common / (len(ours) + len(theirs))


def exact_match(answer: str, reference: str) -> float:
    """1 if both are the same after SQuAD's normalisation, else 0."""
    return float(_normalised(answer) == _normalised(reference))


def word_ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """All runs of n words in order, lower case, punctuation left out.

    Example:
        >>> word_ngrams("To be, or", 2)
        [('to', 'be'), ('be', 'or')]
    """
    words = _WORD.findall(text.lower())
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


@lru_cache(maxsize=4096)
def _rouge_f(answer: str, reference: str, stemmer: bool) -> tuple[float, ...]:  # noqa: FBT001 - a cache key
    found = _rouge(stemmer).score(reference, answer)
    return tuple(float(found[kind].fmeasure) for kind in ROUGE_KINDS)


@cache
def _rouge(stemmer: bool) -> Any:  # noqa: ANN401, FBT001 - rouge-score has no types; cached by value
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE_KINDS), use_stemmer=stemmer)


def _normalised(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())
