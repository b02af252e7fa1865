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

Ids = Mapping[Place, Mapping[str, Sequence[int]]]


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
        return ids[self.place][self.text] if self.token < 0 else (self.token,)


def cut(segments: Iterable[Segment], tokenizer: Tokenizer) -> list[Piece]:
    """Cut rendered text into pieces.

    Raises:
        ModelError: The text opens with two BOS, or an answer span does not end with a control token.
    """
    pieces: list[Piece] = []
    answer, inside = -1, False
    place, owner, waiting = Place.START, -1, ""  # of the plain text that may go on
    for text, control, trained in segments:
        if not text:
            continue
        answer += trained and not inside
        inside = trained
        now = answer if trained else -1
        for part in tokenizer.split_control(text) if control else (text,):
            if waiting and (now != owner or isinstance(part, int)):
                pieces.append(Piece(place, waiting, -1, owner))
                place, waiting = Place.MIDDLE, ""
            if isinstance(part, int):
                pieces.append(Piece(Place.AFTER_CONTROL, "", part, now))
                place = Place.AFTER_CONTROL
            else:
                waiting += part
                owner = now
    if waiting:
        pieces.append(Piece(place, waiting, -1, owner))
    _check(pieces, tokenizer)
    return pieces


def encode_text(documents: Iterable[Iterable[Piece]], tokenizer: Tokenizer) -> Ids:
    """Encode the plain text of many documents; each distinct piece once."""
    wanted: dict[Place, dict[str, None]] = {place: {} for place in Place}
    for pieces in documents:
        for place, text, token, _ in pieces:
            if token < 0:
                wanted[place][text] = None
    return {
        place: dict(zip(texts, tokenizer.encode_plain_many(list(texts), place), strict=True))
        for place, texts in wanted.items()
    }


def _check(pieces: Sequence[Piece], tokenizer: Tokenizer) -> None:
    bos = tokenizer.bos_id
    if bos is not None and [piece.token for piece in pieces[:2]] == [bos, bos]:
        raise ModelError("the template writes two BOS tokens at the start of a text", key="data.template")
    follower = -1  # answer that the piece behind belongs to
    for _, _, token, answer in reversed(pieces):
        if answer >= 0 and token < 0 and follower != answer:
            raise ModelError(
                "the template ends an answer without a control token, so the model can't learn to stop",
                key="data.template",
                cure="end answers with the tokenizer's EOS",
            )
        follower = answer
