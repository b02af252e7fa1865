"""What an importer is: rows of somebody else's file -> questions and answers that a suite can hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_kit.data.format import text_field
from lora_kit.data.strict_json import kind_of
from lora_kit.data.types import Row
from lora_kit.errors import DataError


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt on its way into a suite.

    Args:
        id: As the suite will have it.
        category: For tables.
        key: What rows of answers know it by.
        turns: What the user says, in order; the model answers the last.
        earlier: Ids of the questions whose reference answers stand between the turns.
        cluster: Questions that belong together.
        fields: More fields of the prompt, as in our own files.
        said: Model to its answer, where the row has answers too; the first is the reference.
        origin: ``file:row``.
    """

    id: str
    category: str
    key: str
    turns: tuple[str, ...]
    origin: str
    earlier: tuple[str, ...] = ()
    cluster: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: who gave it (empty if the row doesn't say), to which key."""

    model: str
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Importer:
    """A form of files as a plug-in.

    Args:
        name: Name in the catalogue.
        description: One line.
        marks: Fields that every row of questions has, and that tell it from the other forms.
        ask: Row and its number (from 1) to questions.
        answer: Row of an answers file to answers.
    """

    name: str
    description: str
    marks: tuple[str, ...]
    ask: Callable[[Row, int], list[Question]]
    answer: Callable[[Row], list[Said]]


def first_text(row: Row, *names: str) -> str:
    """Return the first of some fields that is there and isn't blank.

    Raises:
        DataError: None of them is.
    """
    for name in names:
        if row.fields.get(name) not in (None, ""):
            text = text_field(row, name)
            if text.strip():
                return text
    raise DataError("is missing or empty", where=row.origin, key=" or ".join(names))


def id_field(row: Row, *names: str) -> str:
    """Return a row's id, which may be a number.

    Raises:
        DataError: It has none.
    """
    for name in names:
        value = row.fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
        if value is not None:
            raise DataError(f"must be a number or text, found {kind_of(value)}", where=row.origin, key=name)
    raise DataError("is missing", where=row.origin, key=" or ".join(names))


def optional(row: Row, name: str) -> str:
    """Return an optional text, ``""`` where it is absent."""
    return text_field(row, name) if row.fields.get(name) is not None else ""
