import pytest

from lora_kit.harness.text_scores import (
    corpus_bleu,
    corpus_chrf,
    exact_match,
    rouge_f,
    sentence_bleu,
    token_f1,
)

ANSWERS = ["The model learns a small matrix.", "It stops."]


def test_the_same_text_is_best():
    assert corpus_bleu(ANSWERS, ANSWERS)["bleu"] == pytest.approx(100.0)
    assert [corpus_chrf(ANSWERS, ANSWERS, word_order=order)[0] for order in (0, 2)] == pytest.approx(
        [100.0, 100.0]
    )
    assert set(rouge_f(ANSWERS[0], ANSWERS[0], stemmer=True).values()) == {1.0}
    assert sentence_bleu(ANSWERS[0], ANSWERS[0]) == pytest.approx(100.0)
    assert token_f1(ANSWERS[0], ANSWERS[0]) == exact_match(ANSWERS[0], ANSWERS[0]) == 1.0


def test_empty_answers_score_0_and_do_not_crash():
    assert corpus_bleu(["", ""], ANSWERS)["bleu"] == 0.0
    assert corpus_chrf(["", ""], ANSWERS, word_order=0)[0] == 0.0
    assert set(rouge_f("", ANSWERS[0], stemmer=False).values()) == {0.0}
    assert token_f1("", ANSWERS[0]) == exact_match("", ANSWERS[0]) == sentence_bleu("", ANSWERS[0]) == 0.0


def test_squads_normalisation():
    assert exact_match("The  cat, sat!", "a cat sat") == 1.0
    assert token_f1("the", "a") == 1.0
    assert token_f1("cat cat", "cat dog") == 0.5
