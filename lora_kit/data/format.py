"""What a data format is, and the strict pieces that all formats are made of.

A format is a value with one function, Row -> Conversations. It checks every
field that it reads; what it can't use is an error that names row and field,
never a ``None`` or a ``str(...)``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lora_kit.data.strict_json import kind_of
from lora_kit.data.types import Conversation, Message, Role, Row
from lora_kit.errors import DataError
from lora_kit.registry import did_you_mean


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
    """

    name: str
    description: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    answer: str
    convert: Callable[[Row], list[Conversation]]


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


def checked_turns(messages: Sequence[Message], *, where: str, key: str) -> tuple[Message, ...]:
    """Return the messages if they are [system], then user and assistant in turn, the assistant last.

    Raises:
        DataError: Another order; names the turn, counted from 0 as in the file.
    """
    wanted: Role = "user"
    for index, message in enumerate(messages):
        if message.role == wanted:
            wanted = "assistant" if wanted == "user" else "user"
        elif message.role != "system":
            found = f"turn is from {message.role}, expected {wanted}"
            raise DataError(found, where=where, key=f"{key}[{index}]")
        elif index:
            raise DataError(
                "system message in the middle", where=where, key=f"{key}[{index}]", cure="put it first"
            )
    if messages[-1].role != "assistant":
        found = f"the last turn is from {messages[-1].role}: there is no answer to learn"
        raise DataError(found, where=where, key=f"{key}[{len(messages) - 1}]")
    return tuple(messages)
