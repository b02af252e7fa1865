"""What a data format is, and the strict pieces that all formats are made of.

A format is a value with one function, Row -> Conversations. It checks every
field that it reads; what it can't use is an error that names row and field,
never a ``None`` or a ``str(...)``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_kit.data.strict_json import kind_of
from lora_kit.data.types import Conversation, Message, Role, Row
from lora_kit.errors import DataError, Problem
from lora_kit.registry import did_you_mean

Convert = Callable[[Row], list[Conversation]]
Options = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write rows.

    Args:
        name: As in the recipe.
        description: One line for `--help` and the README.
        required: Fields that every row has.
        optional: Fields that a row may have; null counts as absent.
        answer: Field that holds what is learned; problems found later name it.
        convert: Row to conversations; raises a DataError that names the row's origin and the field.
        asks: Whether rows hold a question, so that a blank one is worth a count.
        options: What `data.options` may say: a word of the choices, or a list of words where there are none.
        configured: Those options to the format that follows them.
        join: Rows to rows, where one conversation is spread over several; broken ones go to the callback.
        count: What else of a row the report counts.
    """

    name: str
    description: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    answer: str
    convert: Convert
    asks: bool = True
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    configured: Callable[[Options], "Format"] | None = None
    join: Callable[[Iterable[Row], Callable[[Problem], None]], Iterator[Row]] | None = None
    count: Callable[[Row], Mapping[str, int]] | None = None


def text_field(row: Row, name: str) -> str:
    """Return a required text field.

    Raises:
        DataError: It is missing, or not text.
    """
    value = row.fields.get(name)
    if isinstance(value, str):
        return value
    if name in row.fields:
        raise DataError(f"must be text, found {kind_of(value)}", where=row.origin, key=name)
    has = ", ".join(list(row.fields)[:8]) or "nothing"
    raise DataError(f"missing field '{name}'", where=row.origin, key=name, cure=f"this row has: {has}")


def optional_text(row: Row, name: str) -> str:
    """Return an optional text field, ``""`` if it is absent or null."""
    return text_field(row, name) if row.fields.get(name) is not None else ""


def single_turn(row: Row, question: str, answer: str, *, context: str = "") -> list[Conversation]:
    """Build the conversation of one question and one answer."""
    messages = (Message("user", question, context), Message("assistant", answer))
    return [Conversation(messages, row.origin)]


def list_field(row: Row, name: str) -> list[object]:
    """Return a required list field.

    Raises:
        DataError: It is missing, or not a list, or empty.
    """
    value = row.fields.get(name)
    if name not in row.fields:
        text_field(row, name)
    if not isinstance(value, list):
        raise DataError(f"must be a list, found {kind_of(value)}", where=row.origin, key=name)
    if not value:
        raise DataError("an empty conversation", where=row.origin, key=name)
    return value


def object_item(value: object, *, where: str, key: str) -> dict[str, Any]:
    """Return an element of a list that must be an object.

    Raises:
        DataError: It isn't.
    """
    if isinstance(value, dict):
        return value
    raise DataError(f"must be an object, found {kind_of(value)}", where=where, key=key)


def train_flag(turn: Mapping[str, Any], *, where: str, key: str) -> bool:
    """Say whether a turn is to be learned: its ``train`` or ``weight``, true if it has neither.

    Raises:
        DataError: Neither true, false, 1 nor 0.
    """
    for name in ("train", "weight"):
        value = turn.get(name)
        if value is not None:
            if value not in (0, 1):
                raise DataError("must be true or false (or 1 or 0)", where=where, key=f"{key}.{name}")
            return bool(value)
    return True


def role_of(value: object, names: Mapping[str, Role], *, where: str, key: str) -> Role:
    """Translate a name for a speaker.

    Raises:
        DataError: No such role; the closest known one is suggested.
    """
    if isinstance(value, str) and value in names:
        return names[value]
    if not isinstance(value, str):
        raise DataError(f"must be a role, found {kind_of(value)}", where=where, key=key)
    hint = did_you_mean(value, list(names))
    raise DataError(
        f"unknown role '{value}'", where=where, key=key, cure=hint or f"known: {', '.join(names)}"
    )


def checked_turns(
    messages: Sequence[Message], *, where: str, key: str, first: int = 0
) -> tuple[Message, ...]:
    """Return the messages if they are [system], then user and assistant in turn, the assistant last.

    Args:
        messages: At least one.
        where: The row's origin.
        key: The field that holds the turns.
        first: Number of the first message in that field; -1 if it comes from elsewhere.

    Raises:
        DataError: Another order; names the turn, counted from 0 as in the file.
    """
    wanted: Role = "user"
    for index, message in enumerate(messages):
        place = f"{key}[{index + first}]"
        if message.role == wanted:
            wanted = "assistant" if wanted == "user" else "user"
        elif message.role != "system":
            raise DataError(f"turn is from {message.role}, expected {wanted}", where=where, key=place)
        elif index:
            raise DataError("system message in the middle", where=where, key=place, cure="put it first")
    if messages[-1].role != "assistant":
        found = f"the last turn is from {messages[-1].role}: there is no answer to learn"
        raise DataError(found, where=where, key=f"{key}[{len(messages) - 1 + first}]")
    return tuple(messages)
