"""A Modelfile is written so that a strict reader gets back what was meant."""

import pytest

from lora_kit.errors import ModelError
from lora_kit.export.ollama.modelfile import Modelfile, read_modelfile, write_modelfile

FULL = Modelfile("./m.gguf", '{{- "a\\n" }}\n{{- .Prompt }} ', ("<|im_end|>", "###"), "Be brief.\n  So.", 512)


def test_what_is_written_is_read() -> None:
    text = write_modelfile(FULL)
    assert text.startswith('FROM ./m.gguf\nTEMPLATE """{{- ')
    assert read_modelfile(text) == FULL


def test_the_documentations_forms_are_read() -> None:
    text = '# a comment\nfrom ./x.gguf\nparameter stop "<|end|>"\nPARAMETER temperature 0.7\nSYSTEM """one\ntwo"""\n'  # noqa: E501
    found = read_modelfile(text)
    assert (found.source, found.stops, found.system) == ("./x.gguf", ("<|end|>",), "one\ntwo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TEMPLATE x", "FROM is missing"),
        ("FROM a\nFROM b", "occurs twice"),
        ("FROM a\nPARAMETER colour red", "unknown parameter 'colour'"),
        ("FROM a\nPARAMETER num_ctx many", "not a number"),
        ("FROM a\nRUN rm", "not an instruction"),
        ("FROM", "not an instruction"),
        ('FROM a\nSYSTEM """never closed', "not closed"),
        ('FROM a\nSYSTEM """x""" y', "behind the closing"),
    ],
)
def test_what_ollama_would_not_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_modelfile(text)


@pytest.mark.parametrize("text", ['three """ marks', '"at the start', 'at the end"', "a\r\nb"])
def test_what_a_modelfile_cant_hold_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="Modelfile can't hold"):
        write_modelfile(Modelfile("./m.gguf", "x", (), text))
