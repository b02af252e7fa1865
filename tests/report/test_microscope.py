import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lora_kit.data.encode import Encoder
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.template import load_template
from lora_kit.data.tokenizer import load_tokenizer, wrap_tokenizer
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import RecipeError
from lora_kit.recipe.schema import DataSpec
from lora_kit.report.microscope import Lens, Microscope, open_microscope
from lora_kit.report.microscope_page import microscope_page, page_facts, write_microscope
from lora_kit.report.microscope_text import interlinear, running_text, shown, spans_json

EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> & \u2028"
ROWS = [
    {"instruction": "say 日本", "input": "", "output": "日本\tと 🦙\n"},
    {"instruction": EVIL, "input": "", "output": f"no {EVIL} <|im_end|>"},
    {"instruction": "a", "input": "b" * 200, "output": "c"},
]
Look = Callable[..., Microscope]


def sentencepiece() -> PreTrainedTokenizerFast:
    """Spaces are part of words, unknown characters fall back to bytes, BOS comes first."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdesty.:#", "日"]
    ids = {piece: index for index, piece in enumerate([*pieces, "▁a", "▁sa", "sa"])}
    bpe = Backend(
        models.BPE(ids, [("s", "a"), ("▁", "sa"), ("▁", "a")], unk_token="<unk>", byte_fallback=True)
    )
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    bpe.decoder = decoders.Sequence(steps)
    bpe.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module", params=["byte_level", "sentencepiece"])
def encoders(request: pytest.FixtureRequest, tiny_tokenizer: Path) -> list[Encoder]:
    byte_level = request.param == "byte_level"
    tokenizer = load_tokenizer(tiny_tokenizer) if byte_level else wrap_tokenizer(sentencepiece())
    return [Encoder(tokenizer, load_template(name, tokenizer), "be kind") for name in ("alpaca", "chatml")]


@pytest.fixture
def look(tiny_tokenizer: Path, tmp_path: Path) -> Look:
    """``look(rows, **keys of the recipe's data)``."""

    def open_rows(rows: list[dict[str, str]], **keys: Any) -> Microscope:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows), "utf-8")
        spec = DataSpec(train=str(path), format="alpaca", **({"validation_fraction": 0.0} | keys))
        return open_microscope(spec, open_encoder(tiny_tokenizer, "alpaca", None))

    return open_rows


# --- spans and glyphs ---------------------------------------------------------------------------------------

CHARACTERS = st.text(
    st.characters(codec="utf-8") | st.sampled_from("日本語🦙é\ufffd\u200d \n\u202eabc"),
    max_size=30,
)


@settings(deadline=None, max_examples=150)
@given(said=st.lists(CHARACTERS, min_size=2, max_size=2), train=st.booleans())
def test_spans_are_the_rendered_text_and_the_encoded_ids(
    encoders: list[Encoder], said: list[str], *, train: bool
) -> None:
    messages = (Message("user", said[0]), Message("assistant", said[1], train=train))
    more = (Message("user", "more"), Message("assistant", said[0] + said[1]))
    conversation = Conversation((*messages, *more), "x:1")
    for encoder in encoders:
        example = encoder.encode(conversation)
        spans = Lens(encoder.tokenizer).spans(example)
        system = Message("system", "be kind")
        rendered = encoder.template.render([system, *conversation.messages], generation_prompt=False)
        assert "".join(span.text for span in spans) == "".join(segment.text for segment in rendered)
        assert [i for span in spans for glyph in span.glyphs for i in glyph.ids] == list(example.input_ids)
        flags = [span.trained for span in spans for _ in range(span.tokens)]
        assert flags == list(example.trained)
        kinds = [(span.trained, span.control) for span in spans]
        assert all(before != after for before, after in pairwise(kinds))


def test_a_glyph_is_the_fewest_tokens_that_make_whole_characters(encoders: list[Encoder]) -> None:
    conversation = Conversation((Message("user", "é"), Message("assistant", "a本🦙\ufffd")), "x:1")
    [trained] = [
        span
        for span in Lens(encoders[0].tokenizer).spans(encoders[0].encode(conversation))
        if span.trained and not span.control
    ]
    assert [(glyph.text, len(glyph.ids)) for glyph in trained.glyphs] == [
        ("a", 1),
        ("本", 3),
        ("🦙", 4),
        ("\ufffd", 3),
    ]


@pytest.mark.parametrize(("character", "glyphs"), [("\ufffd", 1), ("本", 5000)])
def test_a_long_run_of_split_characters(encoders: list[Encoder], character: str, glyphs: int) -> None:
    answer = Message("assistant", character * 5000)
    spans = Lens(encoders[0].tokenizer).spans(
        encoders[0].encode(Conversation((Message("user", "q"), answer), "x:1"))
    )
    [learned] = [span for span in spans if span.trained and not span.control]
    assert (learned.text, learned.tokens, len(learned.glyphs)) == (answer.content, 15_000, glyphs)


# --- rows of both sides -------------------------------------------------------------------------------------


def test_rows_of_both_sides_come_in_file_order_with_their_figures(look: Look) -> None:
    rows = [{"instruction": f"q{n}", "input": "", "output": f"answer {n}"} for n in range(40)]
    microscope = look(rows, validation_fraction=0.4)
    specimens = list(microscope.view())
    assert [one.origin for one in specimens] == [f"rows.json:{n}" for n in range(1, 41)]
    assert {one.side for one in specimens} == {"train", "validation"}
    assert sum(one.held_out for one in specimens) == microscope.report["validation_rows"]
    assert sum(one.tokens for one in specimens) == microscope.report["tokens"]
    assert sum(one.trained_tokens for one in specimens) == microscope.report["trained_tokens"]
    assert [one.origin for one in microscope.view(39, 5)] == ["rows.json:39", "rows.json:40"]
    with pytest.raises(RecipeError, match="40 examples, none at 41"):
        microscope.view(41)


def test_every_cut_prompt_is_known_not_only_those_that_the_report_lists(look: Look) -> None:
    rows = [{"instruction": "q", "input": "b" * (400 if n % 2 else 1), "output": f"c{n}"} for n in range(240)]
    microscope = look(rows, overlong="truncate_prompt", max_tokens=300)
    assert [one.truncated for one in microscope.view()] == [n % 2 == 1 for n in range(240)]
    assert microscope.report["truncated"]["count"] == 120


# --- in the terminal ----------------------------------------------------------------------------------------


def test_without_colour_signs_show_the_mask(look: Look) -> None:
    [first, *_] = look(ROWS).view()
    text = running_text(first, marked=True).plain
    assert text.startswith("Below is an instruction")
    assert text.endswith("### Response:«日本⇥と 🦙↵\n⟦</s>⟧»")
    assert "«" not in running_text(first, marked=False).plain


def test_colours_are_on_exactly_the_trained_tokens(look: Look) -> None:
    [_, evil, _] = look(ROWS).view()
    text = running_text(evil, marked=False)
    green = [text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style)]
    assert "".join(green) == shown(f"no {EVIL} <|im_end|>") + "</s>"


def test_ids_stand_under_their_tokens(look: Look) -> None:
    [first, *_] = look(ROWS).view()
    text = interlinear(first, width=60, marked=True).plain
    lines = text.splitlines()
    assert all(len(line) <= 60 for line in lines if line.isascii())
    ids = [int(i) for line in lines[1::2] for cell in line.split() for i in cell.split("+")]
    assert ids == [i for span in first.spans for glyph in span.glyphs for i in glyph.ids]
    assert text.count("«") == text.count("»") == 1


def test_control_characters_never_reach_the_terminal(look: Look) -> None:
    rows = [{"instruction": "\x1b[2J\x07\u202e\u200b\x85", "input": "", "output": "\x1b]0;x\x07"}]
    [one] = look(rows).view()
    console = Console(force_terminal=True, no_color=True, width=80)
    with console.capture() as capture:
        console.print(running_text(one, marked=True))
        console.print(interlinear(one, width=80, marked=True))
    printed = re.sub(r"\x1b\[[0-9;]*m", "", capture.get())
    assert all(character.isprintable() or character == "\n" for character in printed)
    assert "␛[2J␇⟨U+202E⟩⟨U+200B⟩⟨U+0085⟩" in printed


def test_json_of_a_row(look: Look) -> None:
    [first, *_] = look(ROWS).view()
    found = spans_json(first, ids=True)
    assert (
        found["tokens"]
        == sum(span["tokens"] for span in found["spans"])
        == sum(len(s["ids"]) for s in found["spans"])
    )
    assert [span["text"] for span in found["spans"] if span["trained"]] == [ROWS[0]["output"], "</s>"]
    assert (found["origin"], found["side"], found["truncated"]) == ("rows.json:1", "train", False)
    assert "ids" not in spans_json(first, ids=False)["spans"][0]


# --- the page -----------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with their attributes, and the content of script blocks by id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str | None, str] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            key = self.tags[-1][1].get("id")
            self.scripts[key] = self.scripts.get(key, "") + data


def test_the_page_holds_every_row_and_token(look: Look) -> None:
    microscope = look(ROWS, overlong="truncate_prompt", max_tokens=420)
    page = Page(microscope_page("name", page_facts(microscope.report), microscope.view()))
    rows = json.loads(page.scripts["rows"])
    lines = page.scripts["tokens"].split("\n")
    for one, row, line, (example, _) in zip(
        microscope.view(), rows, lines, microscope.examples(), strict=True
    ):
        ids, lengths = json.loads(line)
        assert row[:5] == [one.origin, 0, len(ids), sum(example.trained), one.truncated]
        assert tuple(ids) == example.input_ids
        assert sum(lengths) == sum(len(text.encode("utf-16-le")) // 2 for _, _, text in row[5])
        assert sum(tokens for _, tokens, _ in row[5]) == len(ids)
        assert "".join(text for kind, _, text in row[5] if kind == 1) == ROWS[rows.index(row)]["output"]


def test_nothing_in_a_row_becomes_markup(look: Look) -> None:
    microscope = look(ROWS)
    html = microscope_page(EVIL, [(EVIL, EVIL)], microscope.view())
    page = Page(html)
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == [
        {"id": "rows", "type": "application/json"},
        {"id": "tokens", "type": "text/plain"},
        {},
    ]
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert EVIL in json.loads(page.scripts["rows"])[1][5][0][2]
    assert "<!--" not in html.partition("<body>")[2]


def test_the_page_can_reach_nothing(look: Look) -> None:
    html = microscope_page("name", [], look(ROWS).view())
    page = Page(html)
    [policy] = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not [a for _, a in page.tags if {"src", "href", "style", "onclick"} & a.keys()]
    assert re.findall(r"https?://[^\"'\s]+", html) == ["http://www.w3.org/2000/svg"]


def test_elements_do_not_grow_with_the_rows(look: Look) -> None:
    few = microscope_page("name", [], look(ROWS[:1]).view())
    many = microscope_page("name", [], look(ROWS * 50).view())
    assert len(Page(few).tags) == len(Page(many).tags)


def test_writing_some_of_the_rows(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    microscope = look(ROWS)
    target = tmp_path / "page.html"
    assert write_microscope(target, "name", microscope) == 3
    assert write_microscope(target, "name", microscope, start=2, count=1) == 1
    [row] = json.loads(Page(target.read_text("utf-8")).scripts["rows"])
    assert row[0] == "rows.json:2"
    monkeypatch.setattr("lora_kit.report.microscope_page.MOST_ROWS", 2)
    with pytest.raises(RecipeError, match="pass --rows 2, and --start"):
        write_microscope(target, "name", microscope)
