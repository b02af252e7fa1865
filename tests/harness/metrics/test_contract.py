"""Every metric of the catalogue: in range, best on identical text, bare of surprises."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_kit.catalogue import METRICS
from lora_kit.harness.metric import Metric

TEXTS = ["LoRA adds two thin matrices.", "Yes", "1) a\n2) b", "Größe: 4 GB", "x" * 500]


USABLE = [name for name in METRICS if not METRICS[name].missing]


@pytest.fixture(params=USABLE, scope="module")
def metric(request) -> Metric:
    return METRICS[request.param]


def test_it_has_the_name_that_it_is_found_by(metric):
    assert metric is METRICS[metric.name]
    assert metric.title
    assert metric.signature() == metric.signature() != ""


@pytest.mark.parametrize("text", TEXTS)
def test_identical_text_is_best(metric, text):
    if not metric.compares:
        assert metric.score(text, text) == metric.score(text, "another reference")
        return
    best = metric.score(text, text)
    assert best == pytest.approx(100.0 if metric.higher_is_better else 0.0)
    other = metric.score("Something else altogether, with zebras", text)
    assert other < best if metric.higher_is_better else other > best


@pytest.mark.parametrize("answer", ["", " ", "\n", "...", "😀"])
def test_an_answer_that_says_nothing_scores_0(metric, answer):
    assert metric.score(answer, "A reference with words") == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(answer=st.text(max_size=60), reference=st.text(min_size=1, max_size=60))
def test_scores_are_in_range_for_any_text(answer, reference):
    for name in USABLE:
        assert 0.0 <= METRICS[name].score(answer, reference) <= 100.0
        assert 0.0 <= METRICS[name].coverage(reference) <= 1.0
