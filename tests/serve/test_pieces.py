"""Text pieces: whole characters only, nothing taken back, and together the decoded answer."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from lora_kit.assemble import Opened
from lora_kit.serve.pieces import TextPieces

TEXTS = ["naïve café", "日本語のテキスト", "👩‍👩‍👧 family 🏳️‍🌈", "mixed é日👍 end", "", " leading", "a\nb\n"]


def stream(encoder: Any, ids: list[int]) -> list[str]:
    pieces = TextPieces(encoder)
    return [*(pieces.add(token) for token in ids), pieces.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_no_piece_holds_half_a_character(llama: Opened, text: str) -> None:
    ids = llama.encoder.tokenizer.encode_plain(text)
    pieces = stream(llama.encoder, ids)
    assert "".join(pieces) == llama.encoder.decode_answer(ids)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert pieces[-1] == ""


def test_text_comes_as_early_as_it_can(llama: Opened) -> None:
    ids = llama.encoder.tokenizer.encode_plain("hé")
    assert len(ids) == 3
    assert stream(llama.encoder, ids) == ["h", "", "é", ""]


@given(ids=st.lists(st.integers(4, 299), max_size=30))
def test_any_ids_give_the_decoded_answer(llama: Opened, ids: list[int]) -> None:
    assert "".join(stream(llama.encoder, ids)) == llama.encoder.decode_answer(ids)


def test_half_a_character_at_the_end_is_shown_as_broken(llama: Opened) -> None:
    ids = llama.encoder.tokenizer.encode_plain("aé")[:-1]
    assert stream(llama.encoder, ids) == ["a", "", "\N{REPLACEMENT CHARACTER}"]


def made_of(words: list[str], lead: str, tail: str) -> Any:
    """An encoder whose tokens are words, and whose template has text around the answer."""

    def decode_answer(ids: list[int]) -> str:
        return "".join(words[n] for n in ids).removeprefix(lead).removesuffix(tail)

    return SimpleNamespace(
        decode_answer=decode_answer, template=SimpleNamespace(answer_lead=lead, answer_tail=tail)
    )


def test_text_of_the_template_is_never_shown() -> None:
    encoder = made_of(["\n", "#", " End", "word", "x"], "\n#", "\n\n# End")
    assert stream(encoder, [0, 1, 3, 0, 0, 1, 2]) == ["", "", "word", "", "", "", "", ""]
    assert stream(encoder, [0, 1, 3, 0, 4]) == ["", "", "word", "", "\nx", ""]
    assert stream(encoder, [0, 1, 3, 0]) == ["", "", "word", "", "\n"]
    assert stream(encoder, [3]) == ["word", ""]


@given(ids=st.lists(st.integers(0, 4), max_size=12))
def test_nothing_is_taken_back_whatever_the_template(ids: list[int]) -> None:
    encoder = made_of(["\n", "#", " End", "word", "x"], "\n#", "\n\n# End")
    assert "".join(stream(encoder, ids)) == encoder.decode_answer(ids)


def test_byte_fallback_replaces_earlier_bytes_too() -> None:
    byte_tokens = {f"<0x{n:02X}>": n for n in range(256)}
    backend = Tokenizer(models.BPE(vocab=byte_tokens, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    encoder = SimpleNamespace(
        decode_answer=lambda ids: backend.decode(list(ids)),
        template=SimpleNamespace(answer_lead="", answer_tail=""),
    )
    assert stream(encoder, list("€é".encode())) == ["", "", "€", "", "é", ""]
