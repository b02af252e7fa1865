"""Hostile text stays text, in YAML and in Markdown."""

import html.parser
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from lora_kit.artifacts.model_card import markdown_text, model_card, yaml_text

HOSTILE = [
    "x\n---\nlicense: mit\n---\n<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://evil.example/?q=1)",
    "[click](javascript:alert(1))",
    "| a | b |\n|---|---|",
    "# heading\n- item\n> quote\n```sh\nrm -rf /\n```",
    "\u2028---\u2029\x85\x00\x1b[31m\u202e",
    "!!python/object/apply:os.system ['true']",
    "*&x",
]


def front_matter(card: str) -> dict:
    first, matter, _ = card.split("---\n", 2)
    assert first == ""
    return YAML(typ="safe", pure=True).load(io.StringIO(matter))


def tags(card: str) -> list[str]:
    found = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, _: found.append(tag)
    parser.feed(card)
    return found


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.fault("E6")
def test_hostile_text_adds_nothing(text):
    plain = model_card(provenance("x"), {"loss": 1.5})
    card = model_card(provenance(text), {"loss": 1.5, text: text})
    assert front_matter(card) == front_matter(plain)
    assert tags(card) == tags(plain) == []
    assert len(card.splitlines()) == len(plain.splitlines()) + 2  # one more result and one more mark
    assert "](" not in card.replace("\\]\\(", "")


def provenance(text: str) -> dict:
    return {
        "base": {"source": text, "revision": text, "fingerprint": "f" * 64, "dtype": text},
        "template": {"name": text},
        "quantization": {"method": text},
        "system": text,
        "inexact": [text] * (1 if text == "x" else 2),
    }


def test_a_hub_base_is_named_in_the_front_matter():
    card = model_card(
        {"base": {"source": "HuggingFaceTB/SmolLM2-135M"}, "step": 12}, {"validation_loss": 1.23456}
    )
    matter = front_matter(card)
    assert matter == {
        "library_name": "peft",
        "base_model": "HuggingFaceTB/SmolLM2-135M",
        "tags": ["lora", "lora_kit"],
    }
    assert "| Steps | 12 |" in card
    assert "1.235" in card
    assert "Inexact" not in card


def test_a_card_without_anything_is_still_a_card():
    assert front_matter(model_card({}))["library_name"] == "peft"


def test_an_inexact_run_says_so():
    assert "**Inexact resume.**" in model_card({"inexact": ["threads: was 1, is 2"]}, {})


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_yaml_text_is_read_back_as_it_was(text):
    quoted = yaml_text(text)
    assert len(quoted.splitlines()) == 1
    # YAML reads a JSON escape pair as two characters, so yaml_text writes such characters as themselves
    assert YAML(typ="safe", pure=True).load(quoted) == text


@settings(deadline=None)
@given(st.text(max_size=1000))
def test_markdown_text_is_one_short_line(text):
    line = markdown_text(text)
    assert len(line.splitlines()) <= 1
    assert "<" not in line
    assert len(line) <= 300 * 5


def test_markdown_text_is_cut():
    assert markdown_text("a" * 1000) == "a" * 297 + "..."
