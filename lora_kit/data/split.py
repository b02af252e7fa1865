"""Which rows are held out: a property of each row's content alone.

A row is held out when the hash of its normalised text (or of its group) falls
below the share asked for. So adding, removing or shuffling rows never moves
another row to the other side, duplicates always fall on the same side, and a
larger share keeps the rows of a smaller one.
"""

import hashlib
import unicodedata

from lora_kit.data.types import Conversation

_VERSION = b"lora_kit split 1"
_ASCII_SPACE = b" \t\n\v\f\r\x1c\x1d\x1e\x1f"


def content_key(conversation: Conversation) -> bytes:
    """Return 16 bytes that are equal for conversations that differ at most in case, white space and width."""
    parts = []
    for message in conversation.messages:
        parts += [message.role.encode(), normalised(message.context), normalised(message.content)]
    return _key(parts)


def group_key(group: str) -> bytes:
    """Return the key that all rows of a group are placed by."""
    return _key([b"group", group.encode()])


def is_held_out(key: bytes, fraction: float) -> bool:
    """Say whether rows with this key belong to the validation rows.

    Args:
        key: The `group_key` of rows that have a group, or else the `content_key`.
        fraction: Share to hold out, 0 to 1.
    """
    return int.from_bytes(key[:8], "big") < fraction * 2.0**64


def normalised(text: str) -> bytes:
    """Return text in lower case and NFKC form, without white space, as UTF-8."""
    if not text:
        return b""
    if text.isascii():
        return text.lower().encode().translate(None, _ASCII_SPACE)
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()).encode()


def _key(parts: list[bytes]) -> bytes:
    """Hash parts so that no two lists of parts run together into the same bytes."""
    lengths = ",".join([str(len(part)) for part in parts]).encode()
    return hashlib.sha256(b"\0".join([_VERSION, lengths, *parts])).digest()[:16]
