"""Token ids -> text pieces that can be shown at once: never half a character, never text that is taken back.

A byte-level token may hold a part of a character, and the template's own text may
follow an answer before its end mark. So a piece is only given out when no later
token can change it; all pieces together are ``Encoder.decode_answer`` of all ids.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lora_kit.data.encode import Encoder

_BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(slots=True)
class TextPieces:
    """The text of an answer as it grows.

    Args:
        encoder: Who knows what the ids mean, and what the template puts around an answer.
    """

    encoder: Encoder
    ids: list[int] = field(default_factory=list)
    shown: str = ""

    def add(self, token: int) -> str:
        """Take one more id; return the text that is certain by now, maybe none."""
        self.ids.append(token)
        # Half a character decodes to replacement characters, with byte fallback even those before it.
        return self._advance(self._certain(self.encoder.decode_answer(self.ids).rstrip(_BROKEN)))

    def finish(self) -> str:
        """Return the rest, now that no id follows."""
        return self._advance(self.encoder.decode_answer(self.ids))

    def _certain(self, text: str) -> str:
        """``text`` without what could be the beginning of the template's text around an answer."""
        lead, tail = self.encoder.template.answer_lead, self.encoder.template.answer_tail
        if lead.startswith(text):
            return ""
        held = next((size for size in range(len(tail), 0, -1) if text.endswith(tail[:size])), 0)
        return text[: len(text) - held]

    def _advance(self, text: str) -> str:
        if not text.startswith(self.shown):
            return ""
        piece = text[len(self.shown) :]
        self.shown = text
        return piece


def pieces_of(encoder: Encoder, tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of an answer as its tokens come."""
    pieces = TextPieces(encoder)
    for token in tokens:
        if piece := pieces.add(token):
            yield piece
    if rest := pieces.finish():
        yield rest
