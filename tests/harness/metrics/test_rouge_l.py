import pytest

from lora_kit.harness.metrics import rouge_l


def lcs_f(answer: list[str], reference: list[str]) -> float:
    """Straight from the definition."""
    table = [[0] * (len(reference) + 1) for _ in range(len(answer) + 1)]
    for i, a in enumerate(answer):
        for j, b in enumerate(reference):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    common = table[-1][-1]
    return 200.0 * common / (len(answer) + len(reference))


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("the cat sat", "the cat sat on the mat"), ("b a c", "a b c d"), ("one two", "three four")],
)
def test_it_is_the_longest_common_subsequence(answer, reference):
    assert rouge_l.score(answer, reference) == pytest.approx(lcs_f(answer.split(), reference.split()))


def test_words_are_stemmed_and_said_so():
    assert rouge_l.score("training models", "trained model") == pytest.approx(100.0)
    assert "stemmer:porter" in rouge_l.signature()


def test_a_script_that_its_tokenizer_deletes_is_seen():
    assert rouge_l.score("低秩适配", "低秩适配") == 0.0
    assert rouge_l.coverage("低秩适配") == 0.0
    assert rouge_l.coverage("Größe 12") == pytest.approx(5 / 7)
    assert rouge_l.coverage("!!!") == 1.0
