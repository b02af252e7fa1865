"""ShareGPT as Vicuna reads it: ``conversations`` of ``from`` and ``value``.

Speakers go by several names in the wild; a ``system`` field beside the turns is
the system prompt, and a turn with ``"weight": 0`` is shown but not learned.
https://github.com/lm-sys/FastChat/blob/main/data/dummy_conversation.json
"""

from collections.abc import Mapping

from lora_kit.data.format import (
    Format,
    checked_turns,
    list_field,
    object_item,
    optional_text,
    role_of,
    train_flag,
)
from lora_kit.data.strict_json import kind_of
from lora_kit.data.types import Conversation, Message, Role, Row
from lora_kit.errors import DataError

_ROLES: Mapping[str, Role] = {
    "human": "user",
    "gpt": "assistant",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "prompter": "user",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
}


def convert(row: Row) -> list[Conversation]:
    """One conversation, its turns checked for order."""
    turns = list_field(row, "conversations")
    system = optional_text(row, "system")
    messages = [Message("system", system)] if system else []
    for index, turn in enumerate(turns):
        messages.append(_message(turn, row.origin, f"conversations[{index}]"))
    first = -len(messages) + len(turns)
    return [
        Conversation(checked_turns(messages, where=row.origin, key="conversations", first=first), row.origin)
    ]


def _message(turn: object, where: str, key: str) -> Message:
    fields = object_item(turn, where=where, key=key)
    for name in ("from", "value"):
        if name not in fields:
            mixed = {"role", "content"} & fields.keys()
            cure = "this looks like OpenAI's messages: format: messages, fields: {messages: conversations}"
            raise DataError(
                f"missing field '{name}'", where=where, key=f"{key}.{name}", cure=cure if mixed else ""
            )
    role = role_of(fields["from"], _ROLES, where=where, key=f"{key}.from")
    value = fields["value"]
    if not isinstance(value, str):
        raise DataError(f"must be text, found {kind_of(value)}", where=where, key=f"{key}.value")
    return Message(role, value, train=train_flag(fields, where=where, key=key))


FORMAT = Format(
    name="sharegpt",
    description="conversations: [{from: human | gpt | system, value: text}]",
    required=("conversations",),
    optional=("system",),
    answer="conversations",
    convert=convert,
)
