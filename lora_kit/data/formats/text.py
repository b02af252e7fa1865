"""Plain continued training: every token of ``text`` is learned.

A text is an answer to nothing: a conversation with an empty question. The
template `plain` writes it as it is; a chat template would put turns around it.
"""

from lora_kit.data.format import Format, single_turn, text_field
from lora_kit.data.types import Conversation, Row


def convert(row: Row) -> list[Conversation]:
    """One text."""
    return single_turn(row, "", text_field(row, "text"))


FORMAT = Format(
    name="text",
    description="text, learned whole (with template: plain)",
    required=("text",),
    optional=(),
    answer="text",
    convert=convert,
    asks=False,
)
