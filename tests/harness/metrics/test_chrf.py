import pytest
from sacrebleu import sentence_chrf

from lora_kit.harness.metrics import chrf


def test_it_is_sacrebleus_chrf2_and_says_so():
    answer, reference = "The model stops by itself.", "A model that stops by itself"
    assert chrf.score(answer, reference) == pytest.approx(sentence_chrf(answer, [reference]).score)
    assert chrf.signature() == "chrF2|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"


def test_it_reads_every_script():
    assert chrf.score("低秩适配", "低秩适配") == pytest.approx(100.0)
