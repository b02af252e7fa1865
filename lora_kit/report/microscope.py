"""Examples as they will be trained on, token for token, ready to be shown.

Nothing is rendered anew: ids and flags are those of the prepared data, and their text
is decoded from the ids. A token of a byte-level vocabulary may be a part of a
character, so text is shown in *glyphs*: the fewest tokens that make whole characters.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from lora_kit.data.encode import Encoder
from lora_kit.data.encode_rows import Progress
from lora_kit.data.prepare import PreparedData, prepare_data
from lora_kit.data.row_file import Ints
from lora_kit.data.survey import truncated_hashes
from lora_kit.data.tokenizer import Tokenizer
from lora_kit.data.tokenizer_variants import Place
from lora_kit.data.types import Example
from lora_kit.errors import RecipeError
from lora_kit.recipe.schema import DataSpec

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_LONGEST_GLYPH_TOKENS = 16


class Glyph(NamedTuple):
    """The fewest tokens that make whole characters.

    Args:
        text: What they say; empty for a token that says nothing.
        ids: One or more token ids.
    """

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring tokens of one kind.

    Args:
        trained: Whether they are targets of the loss.
        control: Whether they are control tokens; one glyph is one token then.
        glyphs: In order.
    """

    trained: bool
    control: bool
    glyphs: tuple[Glyph, ...]

    @property
    def text(self) -> str:
        """What all of them say."""
        return "".join(glyph.text for glyph in self.glyphs)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(len(glyph.ids) for glyph in self.glyphs)


@dataclass(frozen=True, slots=True)
class Specimen:
    """One example under the microscope.

    Args:
        origin: ``file:row``.
        held_out: Whether it is for validation.
        truncated: Whether its prompt was cut to fit.
        spans: Its tokens in order.
    """

    origin: str
    held_out: bool
    truncated: bool
    spans: tuple[Span, ...]

    @property
    def side(self) -> str:
        """``train`` or ``validation``."""
        return "validation" if self.held_out else "train"

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(span.tokens for span in self.spans)

    @property
    def trained_tokens(self) -> int:
        """Number of tokens that the loss sums over."""
        return sum(span.tokens for span in self.spans if span.trained)


class Microscope:
    """All examples of a run, both sides together in the order of their files.

    Args:
        data: The prepared rows.
        tokenizer: Whose ids they are.
        truncated: Content hashes of examples whose prompt was cut.
    """

    def __init__(
        self, data: PreparedData, tokenizer: Tokenizer, truncated: AbstractSet[str] = frozenset()
    ) -> None:
        self.lens = Lens(tokenizer)
        self.truncated = truncated
        self.report = data.report.to_json()
        self._both, self._trained = data.train + data.validation, len(data.train)
        self._order = _file_order(self._both.origins())

    def __len__(self) -> int:
        return len(self._order)

    def examples(self, rows: slice = slice(None)) -> Iterator[tuple[Example, bool]]:
        """Yield examples in the order of their files, each with whether it is held out."""
        return ((self._both[at], at >= self._trained) for at in map(int, self._order[rows]))

    def view(self, start: int = 1, count: int | None = None) -> Iterator[Specimen]:
        """Examples from the one at ``start`` (counted from 1) on, at most ``count``, made one by one.

        Raises:
            RecipeError: There are not that many.
        """
        if start > len(self):
            raise RecipeError(f"there are {len(self):,} examples, none at {start:,}", key="--start")
        first = start - 1
        chosen = self.examples(slice(first, None if count is None else first + count))
        return (self._specimen(example, held_out=held_out) for example, held_out in chosen)

    def _specimen(self, example: Example, *, held_out: bool) -> Specimen:
        cut = example.content_hash in self.truncated
        return Specimen(example.origin, held_out, cut, self.lens.spans(example))


def open_microscope(spec: DataSpec, encoder: Encoder, *, on_progress: Progress | None = None) -> Microscope:
    """Prepare the rows of a recipe as a run does, to look at them.

    Args:
        spec: The recipe's data section, its paths absolute.
        encoder: The run's.
        on_progress: Called with (conversations encoded, conversations in all).

    Raises:
        DataError: Rows are wrong, each named, or none is left.
        MachineError: A file can't be read.
    """
    data = prepare_data(spec, encoder, on_progress=on_progress)
    return Microscope(data, encoder.tokenizer, truncated_hashes(data, spec))


class Lens:
    """Turns ids back into spans of glyphs; remembers the text of every token that it has met.

    Args:
        tokenizer: Whose ids they are.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._control = {index: token for token, index in tokenizer.control.items()}
        self._known: dict[int, Glyph] = {}

    def spans(self, example: Example) -> tuple[Span, ...]:
        """Cut an example where the mask or the kind of token changes."""
        flags = [
            (trained, token in self._control)
            for token, trained in zip(example.input_ids, example.trained, strict=True)
        ]
        spans: list[Span] = []
        at = 0
        for (trained, control), group in groupby(flags):
            end = at + len(list(group))
            ids = example.input_ids[at:end]
            after_control = bool(spans) and spans[-1].control
            place = Place.START if not at else Place.AFTER_CONTROL if after_control else Place.MIDDLE
            glyphs = tuple(Glyph(self._control[i], (i,)) for i in ids) if control else self.glyphs(ids, place)
            spans.append(Span(trained, control, glyphs))
            at = end
        return tuple(spans)

    def glyphs(self, ids: Sequence[int], place: Place) -> tuple[Glyph, ...]:
        """Cut plain tokens into glyphs; together their texts are exactly what all the ids decode to."""
        found: list[Glyph] = []
        at = 0
        while at < len(ids):
            glyph = self._glyph(ids, at, Place.MIDDLE if at else place)
            found.append(glyph)
            at += len(glyph.ids)
        whole = self.tokenizer.decode(ids, place)
        # A decoder may read tokens together otherwise than apart (WordPiece does); then they stay together.
        together = "".join(glyph.text for glyph in found)
        return tuple(found) if together == whole else (Glyph(whole, tuple(ids)),)

    def _glyph(self, ids: Sequence[int], at: int, place: Place) -> Glyph:
        glyph = self._single(ids[at], place)
        end = at + 1
        while _BROKEN in glyph.text and end < len(ids) and self._is_part(ids[end]):
            end += 1
            # Past this, the text really contains U+FFFD, and all that is broken stays together.
            if end - at <= _LONGEST_GLYPH_TOKENS or end == len(ids) or not self._is_part(ids[end]):
                glyph = Glyph(self.tokenizer.decode(ids[at:end], place), tuple(ids[at:end]))
        return glyph

    def _is_part(self, token: int) -> bool:
        return _BROKEN in self._single(token, Place.MIDDLE).text

    def _single(self, token: int, place: Place) -> Glyph:
        if place is not Place.MIDDLE:
            return Glyph(self.tokenizer.decode([token], place), (token,))
        if token not in self._known:
            self._known[token] = Glyph(self.tokenizer.decode([token], place), (token,))
        return self._known[token]


def _file_order(origins: Iterator[str]) -> Ints:
    """Sort by file, in the order in which files first appear, then by row; returns what stands where."""
    numbers: dict[str, int] = {}
    files, rows = array("q"), array("q")
    for origin in origins:
        file, _, row = origin.rpartition(":")
        number = re.match(r"\d+", row)
        files.append(numbers.setdefault(file, len(numbers)))
        rows.append(int(number[0]) if number else 0)
    return np.lexsort((rows, files))
