"""The fields of a suite's rows: answers, turns and weight, each checked where it is read."""

from collections.abc import Mapping

from lora_kit.data.format import list_field, optional_text, role_of, text_field
from lora_kit.data.types import Message, Role, Row
from lora_kit.errors import DataError

ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
HEAVIEST = 1e6


def answers_of(reference: Row) -> tuple[str, ...]:
    """Return the answer of a row of references, or its list of answers.

    Raises:
        DataError: None, or an empty one.
    """
    value = reference.fields.get("answer")
    if not isinstance(value, list):
        return (filled(reference, "answer"),)
    if not value:
        raise DataError("is empty", where=reference.origin, key="answer")
    rows = (Row({f"answer[{at}]": text}, reference.origin) for at, text in enumerate(value))
    return tuple(filled(row, next(iter(row.fields))) for row in rows)


def weight_of(row: Row) -> float:
    """Return how much a prompt counts, 1 if it doesn't say.

    Raises:
        DataError: Not a number above 0.
    """
    value = row.fields.get("weight")
    if value is None:
        return 1.0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0.0 < value <= HEAVIEST:
        raise DataError(f"must be a number above 0, at most {HEAVIEST:g}", where=row.origin, key="weight")
    return float(value)


def messages_of(row: Row) -> tuple[Message, ...]:
    """Return what is said before the model speaks.

    Raises:
        DataError: Neither a prompt nor messages, both, or something else in them.
    """
    if ("prompt" in row.fields) == ("messages" in row.fields):
        raise DataError("needs either 'prompt' or 'messages'", where=row.origin)
    if "prompt" in row.fields:
        return (Message("user", filled(row, "prompt"), optional_text(row, "context")),)
    if "context" in row.fields:
        raise DataError("belongs to 'prompt'; write it into the message", where=row.origin, key="context")
    return tuple(_message(row, index, turn) for index, turn in enumerate(list_field(row, "messages")))


def _message(row: Row, index: int, turn: object) -> Message:
    key = f"messages[{index}]"
    if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
        raise DataError("must be {role, content}", where=row.origin, key=key)
    role = role_of(turn["role"], ROLES, where=row.origin, key=f"{key}.role")
    return Message(role, filled(Row(turn, f"{row.origin}: {key}"), "content"))


def filled(row: Row, name: str) -> str:
    """Return a required text that isn't blank.

    Raises:
        DataError: Missing, not text, or blank.
    """
    text = text_field(row, name)
    if not text.strip():
        raise DataError("is empty", where=row.origin, key=name)
    return text
