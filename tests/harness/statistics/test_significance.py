import pytest

from lora_kit.harness.statistics.significance import holm, mcnemar, sign_test


@pytest.mark.parametrize(("positive", "negative"), [(6, 0), (7, 3), (5, 5), (0, 0), (40, 60)])
def test_the_sign_test_is_exact(positive, negative):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(positive, positive + negative).pvalue if positive + negative else 1.0
    assert sign_test(positive, negative) == pytest.approx(expected)
    assert mcnemar(negative, positive) == sign_test(positive, negative)


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
