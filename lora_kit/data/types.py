"""The values that a row passes through: Row -> Conversation -> Segment -> Example.

Nobody after ``Conversation`` knows which format a row came in, and every value
carries its origin (``file:row``), so that a bad number can be walked back to a row.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Row:
    """One record as read, untouched.

    Args:
        fields: The record's fields, as JSON gave them.
        origin: ``file.jsonl:412``; rows count from 1 (lines in JSONL, elements in a JSON list).
    """

    fields: dict[str, Any]
    origin: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Args:
        role: Who speaks.
        content: What is said, exactly.
        context: Text that the request is about (Alpaca's ``input``, Dolly's ``context``); a template says
            where it goes.
        train: Whether an assistant turn is learned; ignored for the other roles.
    """

    role: Role
    content: str
    context: str = ""
    train: bool = True


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order, from one row.

    Args:
        messages: At least one; a training conversation ends with an assistant turn.
        origin: Where it came from, ``file:row``.
        group: Rows with the same non-empty group are never split between training and validation.
    """

    messages: tuple[Message, ...]
    origin: str
    group: str = ""


class Segment(NamedTuple):
    """A piece of rendered text.

    Args:
        text: The characters.
        control: True for text of the template, in which control tokens are recognised; False for
            text of the user or the model, in which nothing is ever a control token.
        trained: Whether its tokens are targets of the loss.
    """

    text: str
    control: bool
    trained: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation as token ids.

    Args:
        input_ids: The T token ids, at most one BOS.
        trained: T flags; ``trained[t]`` says that token t is a target (predicted from the tokens before it).
        origin: ``file:row`` of the row it came from.
        content_hash: sha256 (hex) of the conversation, from which splits and orders derive.
    """

    input_ids: tuple[int, ...]
    trained: tuple[bool, ...]
    origin: str
    content_hash: str

    @property
    def trained_tokens(self) -> int:
        """Number of tokens that the loss sums over."""
        return sum(self.trained)
