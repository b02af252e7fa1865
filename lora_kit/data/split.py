"""Which rows are held out: a property of each row's content alone.

A row is held out when the hash of its normalised text (or of its group) falls
below the share asked for. So adding, removing or shuffling rows never moves
another row to the other side, duplicates always fall on the same side, and a
larger share keeps the rows of a smaller one.
"""

import hashlib
import unicodedata

from lora_kit.data.types import Conversation

_PURPOSE = b"lora_kit validation split 1\0"


def exact_key(conversation: Conversation) -> bytes:
    """Return 16 bytes that are equal for conversations with the same turns, to the character."""
    return _digest([part for m in conversation.messages for part in (m.role, m.context, m.content)])


def content_key(conversation: Conversation) -> bytes:
    """Return 16 bytes that are equal for conversations that differ at most in case, white space and width."""
    turns = conversation.messages
    return _digest([part for m in turns for part in (m.role, normalised(m.context), normalised(m.content))])


def normalised(text: str) -> str:
    """Return text in lower case and NFKC form, with runs of white space as one blank."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(folded.casefold().split())


def is_held_out(key: bytes, fraction: float, *, group: str = "") -> bool:
    """Say whether a row belongs to the validation rows.

    Args:
        key: The row's `content_key`.
        fraction: Share to hold out, 0 to 1.
        group: If not empty, decides in the place of `key`: a group is never cut apart.
    """
    basis = b"group\0" + group.encode() if group else b"row\0" + key
    place = int.from_bytes(hashlib.sha256(_PURPOSE + basis).digest()[:8], "big")
    return place < fraction * 2.0**64


def _digest(parts: list[str]) -> bytes:
    """Hash texts so that no two lists of texts run together into the same bytes."""
    text = "".join(parts)
    lengths = ",".join([str(len(part)) for part in parts])
    return hashlib.sha256(f"{lengths}:{text}".encode()).digest()[:16]
