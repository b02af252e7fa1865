"""OpenAI's chat format: ``messages`` of ``role`` and ``content``.

``content`` is text, or a list of ``{"type": "text", "text": ...}`` parts. An
assistant turn with ``"train": false`` (or ``"weight": 0``) is shown but not learned.
https://platform.openai.com/docs/api-reference/fine-tuning/chat-input
"""

from collections.abc import Mapping

from lora_kit.data.format import Format, checked_turns, list_field, object_item, role_of, train_flag
from lora_kit.data.strict_json import kind_of
from lora_kit.data.types import Conversation, Message, Role, Row
from lora_kit.errors import DataError

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "developer": "system",
}
_UNSUPPORTED = ("tool_calls", "function_call", "refusal")


def convert(row: Row) -> list[Conversation]:
    """One conversation, its turns checked for order."""
    turns = list_field(row, "messages")
    messages = [_message(turn, row.origin, f"messages[{index}]") for index, turn in enumerate(turns)]
    return [Conversation(checked_turns(messages, where=row.origin, key="messages"), row.origin)]


def _message(turn: object, where: str, key: str) -> Message:
    fields = object_item(turn, where=where, key=key)
    for name in _UNSUPPORTED:
        if fields.get(name):
            raise DataError(f"'{name}' can't be learned yet", where=where, key=key, cure="leave the row out")
    for name in ("role", "content"):
        if name not in fields:
            cure = "this looks like ShareGPT (format: sharegpt)" if {"from", "value"} & fields.keys() else ""
            raise DataError(f"missing field '{name}'", where=where, key=f"{key}.{name}", cure=cure)
    role = role_of(fields["role"], _ROLES, where=where, key=f"{key}.role")
    return Message(
        role,
        _content(fields["content"], where, f"{key}.content"),
        train=train_flag(fields, where=where, key=key),
    )


def _content(content: object, where: str, key: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise DataError(f"must be text or a list of parts, found {kind_of(content)}", where=where, key=key)
    texts = []
    for index, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            found = f"a part of type {part.get('type')!r}" if isinstance(part, dict) else kind_of(part)
            raise DataError(
                f"only text parts can be learned, found {found}", where=where, key=f"{key}[{index}]"
            )
        texts.append(text)
    return "".join(texts)


FORMAT = Format(
    name="messages",
    description="messages: [{role: system | user | assistant, content: text, train: true | false}]",
    required=("messages",),
    optional=(),
    answer="messages",
    convert=convert,
)
