"""Segments -> the pieces that are encoded as a whole.

Cuts fall at control tokens of the template and at the edges of answer spans, and nowhere else; text
between two cuts is joined, so that words are encoded as in running text (`` Hello``, not `` `` and
``Hello``). Where cuts fall depends on the shape of a conversation only, never on what is trained.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lora_kit.data.tokenizer import Tokenizer
from lora_kit.data.tokenizer_variants import Place
from lora_kit.data.types import Segment
from lora_kit.errors import ModelError

Ids = Mapping[tuple[Place, str], Sequence[int]]


class Piece(NamedTuple):
    """What is encoded as a whole.

    Args:
        place: Where plain text stands.
        text: Plain text; empty for a control token.
        token: Id of a control token; -1 for plain text.
        answer: Index of the answer span that it belongs to; -1 outside of answers.
    """

    place: Place
    text: str
    token: int
    answer: int

    def tokens(self, ids: Ids) -> Sequence[int]:
        """Token ids, given those of all plain text."""
        return ids[self.place, self.text] if self.token < 0 else (self.token,)


def cut(segments: Iterable[Segment], tokenizer: Tokenizer) -> list[Piece]:
    """Cut rendered text into pieces.

    Raises:
        ModelError: The text opens with two BOS, or an answer span does not end with a control token.
    """
    pieces: list[Piece] = []
    answer, inside = -1, False
    for segment in segments:
        if not segment.text:
            continue
        answer += segment.trained and not inside
        inside = segment.trained
        parts = tokenizer.split_control(segment.text) if segment.control else (segment.text,)
        for part in parts:
            _append(pieces, part, answer if inside else -1)
    _check(pieces, tokenizer)
    return pieces


def encode_text(documents: Iterable[Iterable[Piece]], tokenizer: Tokenizer) -> Ids:
    """Encode the plain text of many documents; each distinct piece once."""
    wanted: dict[Place, dict[str, None]] = {place: {} for place in Place}
    for pieces in documents:
        for piece in pieces:
            if piece.token < 0:
                wanted[piece.place][piece.text] = None
    ids: dict[tuple[Place, str], Sequence[int]] = {}
    for place, texts in wanted.items():
        encoded = tokenizer.encode_plain_many(list(texts), place)
        ids.update(((place, text), found) for text, found in zip(texts, encoded, strict=True))
    return ids


def _append(pieces: list[Piece], part: str | int, answer: int) -> None:
    last = pieces[-1] if pieces else None
    if isinstance(part, int):
        pieces.append(Piece(Place.AFTER_CONTROL, "", part, answer))
    elif last is None:
        pieces.append(Piece(Place.START, part, -1, answer))
    elif last.token >= 0:
        pieces.append(Piece(Place.AFTER_CONTROL, part, -1, answer))
    elif last.answer == answer:
        pieces[-1] = last._replace(text=last.text + part)
    else:
        pieces.append(Piece(Place.MIDDLE, part, -1, answer))


def _check(pieces: Sequence[Piece], tokenizer: Tokenizer) -> None:
    bos = tokenizer.bos_id
    if bos is not None and [piece.token for piece in pieces[:2]] == [bos, bos]:
        raise ModelError("the template writes two BOS tokens at the start of a text", key="data.template")
    for piece, after in zip(pieces, [*pieces[1:], None], strict=True):
        if piece.answer >= 0 and piece.token < 0 and (after is None or after.answer != piece.answer):
            raise ModelError(
                "the template ends an answer without a control token, so the model can't learn to stop",
                key="data.template",
                cure="end answers with the tokenizer's EOS",
            )
