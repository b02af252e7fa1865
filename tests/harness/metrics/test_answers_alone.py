"""Metrics that look at the answer alone, or need something that may not be installed."""

import sys
from types import SimpleNamespace

import pytest

from lora_kit.harness import metric as metric_module
from lora_kit.harness.metrics import bleu, distinct_2, embedding_similarity, exact_match, repetition, token_f1
from lora_kit.harness.text_scores import sentence_bleu


@pytest.mark.parametrize(
    ("text", "repeated", "distinct"),
    [
        ("one two three four five", 0.0, 80.0),
        ("yes yes yes yes yes yes", 100.0 * 2 / 3, 100.0 / 6),
        ("a b c d a b c d", 20.0, 50.0),
        ("three words only", 0.0, 200.0 / 3),
        ("好好好好好好", 100.0 * 2 / 3, 100.0 / 6),
        ("", 0.0, 0.0),
    ],
)
def test_repetition_and_distinct_are_as_defined(text, repeated, distinct):
    assert repetition.score(text, "x") == pytest.approx(repeated)
    assert distinct_2.score(text, "x") == pytest.approx(distinct)


def test_bleu_is_sacrebleus_sentence_bleu_and_says_so():
    answer, reference = "the cat sat on a mat", "the cat sat on the mat"
    assert bleu.score(answer, reference) == pytest.approx(sentence_bleu(answer, reference), abs=1e-9)
    assert bleu.signature().startswith("BLEU|mean of sentences|nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp")


def test_articles_and_punctuation_do_not_count():
    assert exact_match.score("The bridge.", "bridge") == 100.0
    assert exact_match.score("The bridges", "bridge") == 0.0
    assert token_f1.score("an old bridge", "the bridge!") == pytest.approx(200.0 / 3)
    assert exact_match.score("", "a") == token_f1.score("", "the") == 0.0


def test_embeddings_are_compared_by_their_cosine(monkeypatch):
    made = []

    class StandIn:
        def __init__(self, name):
            made.append(name)

        def encode(self, texts, *, normalize_embeddings):
            assert normalize_embeddings
            known = {"up": (1.0, 0.0), "up too": (0.6, 0.8), "down": (-1.0, 0.0)}
            return [known[text] for text in texts]

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=StandIn))
    embedding_similarity._model.cache_clear()
    try:
        assert embedding_similarity.score("up", "up") == pytest.approx(100.0)
        assert embedding_similarity.score("up", "up too") == pytest.approx(60.0)
        assert embedding_similarity.score("up", "down") == 0.0
        assert embedding_similarity.score(" ", "up") == 0.0
    finally:
        embedding_similarity._model.cache_clear()
    assert made == ["sentence-transformers/all-MiniLM-L6-v2"]


def test_what_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(metric_module, "find_spec", lambda _: None)
    assert embedding_similarity.METRIC.missing == "pip install 'lora-kit[embedding]'"
    assert bleu.METRIC.missing == ""
