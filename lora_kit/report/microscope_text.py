"""Examples in a terminal: trained tokens in colour, or in guillemets where there is no colour.

Everything is foreign text: control characters are shown as symbols and never reach
the terminal, so that a row can neither drive it nor hide what it says.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from lora_kit.report.microscope import Span, Specimen

_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})
_JOINER = "\N{ZERO WIDTH JOINER}"
_DELETE = 0x7F
_STYLES = {
    (False, False): "",
    (False, True): "reverse cyan",
    (True, False): "green",
    (True, True): "reverse green",
}
Cell = tuple[str, str, str]


def heading(specimen: Specimen) -> Text:
    """Where an example comes from, and its figures."""
    tokens, trained = specimen.tokens, specimen.trained_tokens
    figures = f"{specimen.side}  {tokens:,} tokens, {trained:,} trained"
    cut = "  prompt cut" if specimen.truncated else ""
    return Text.assemble((shown(specimen.origin), "bold"), f"  {figures}{cut}")


def running_text(specimen: Specimen, *, marked: bool) -> Text:
    """Write an example as it reads.

    Args:
        specimen: The example.
        marked: Whether signs say what colours would: «trained», ⟦control token⟧.
    """
    text = Text()
    for span, before, after in _with_marks(specimen.spans, marked=marked):
        style = _STYLES[span.trained, span.control]
        text.append(before)
        for glyph in span.glyphs:
            said = shown(glyph.text).replace("↵", "↵\n")
            text.append(f"⟦{said}⟧" if marked and span.control else said, style)
        text.append(after)
    return text


def interlinear(specimen: Specimen, *, width: int, marked: bool) -> Text:
    """Write an example in pairs of lines: tokens, and under each its id (``12+7`` if a character takes two).

    Args:
        specimen: The example.
        width: Columns of the terminal.
        marked: Whether signs say what colours would.
    """
    text = Text()
    for line in _lines(list(_cells(specimen, marked=marked)), width):
        for above in (True, False):
            for said, ids, style in line:
                room = max(cell_len(said), len(ids)) + 1
                part = said if above else ids
                text.append(part, style if above else "dim")
                text.append(" " * (room - cell_len(part)))
            text.append("\n")
    return text


def spans_json(specimen: Specimen, *, ids: bool) -> dict[str, Any]:
    """An example as JSON values."""
    spans = [
        {"text": span.text, "tokens": span.tokens, "trained": span.trained, "control": span.control}
        | ({"ids": [token for glyph in span.glyphs for token in glyph.ids]} if ids else {})
        for span in specimen.spans
    ]
    return {
        "origin": specimen.origin,
        "side": specimen.side,
        "tokens": specimen.tokens,
        "trained_tokens": specimen.trained_tokens,
        "truncated": specimen.truncated,
        "spans": spans,
    }


def shown(text: str) -> str:
    r"""Text with a sign for every character that has none.

    Example:
        >>> shown("a\tb\r\n\x1b[2J\u202e")
        'a⇥b␍↵␛[2J⟨U+202E⟩'
    """
    return text if text.isprintable() else "".join(_sign(character) for character in text)


def _sign(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return "↵" if character == "\n" else "⇥"
    if code < 0x20 or code == _DELETE:
        return chr(0x2421 if code == _DELETE else 0x2400 + code)
    hidden = unicodedata.category(character) in _INVISIBLE and character != _JOINER
    return f"⟨U+{code:04X}⟩" if hidden or "\ud800" <= character <= "\udfff" else character


def _with_marks(spans: tuple[Span, ...], *, marked: bool) -> Iterator[tuple[Span, str, str]]:
    """Each span with the guillemets before and after it: one pair around each trained stretch."""
    for at, span in enumerate(spans):
        opens = marked and span.trained and not (at and spans[at - 1].trained)
        closes = marked and span.trained and not (at + 1 < len(spans) and spans[at + 1].trained)
        yield span, "«" * opens, "»" * closes


def _cells(specimen: Specimen, *, marked: bool) -> Iterator[Cell]:
    for span, before, after in _with_marks(specimen.spans, marked=marked):
        last = len(span.glyphs) - 1
        for at, glyph in enumerate(span.glyphs):
            said = shown(glyph.text).replace(" ", "·").replace(_JOINER, f"⟨U+{ord(_JOINER):04X}⟩")
            said = f"⟦{said}⟧" if marked and span.control else said
            said = before * (at == 0) + said + after * (at == last)
            yield said, "+".join(map(str, glyph.ids)), _STYLES[span.trained, span.control]


def _lines(cells: list[Cell], width: int) -> Iterator[list[Cell]]:
    """Fill lines; a cell that is wider than all of them gets one to itself."""
    line: list[Cell] = []
    used = 0
    for cell in cells:
        room = max(cell_len(cell[0]), len(cell[1])) + 1
        if line and used + room > width:
            yield line
            line, used = [], 0
        line.append(cell)
        used += room
    if line:
        yield line
