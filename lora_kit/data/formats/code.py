"""Instruction and code, as in the sets that StarCoder's descendants are tuned on.

With a ``language`` the answer is a fenced block of it, as a chat model writes
code; without one it is the code alone.
https://github.com/bigcode-project/starcoder#fine-tuning
"""

import re

from lora_kit.data.format import Format, optional_text, single_turn, text_field
from lora_kit.data.types import Conversation, Row
from lora_kit.errors import DataError

_TICKS = re.compile("`{3,}")


def convert(row: Row) -> list[Conversation]:
    """One task, one piece of code."""
    instruction, code = text_field(row, "instruction"), text_field(row, "code")
    language, context = optional_text(row, "language").strip(), optional_text(row, "context")
    if any(mark in language for mark in "`\r\n"):
        raise DataError("must be the name of a language", where=row.origin, key="language")
    answer = _fenced(code, language) if language and code.strip() else code
    return single_turn(row, instruction, answer, context=context)


def _fenced(code: str, language: str) -> str:
    """Put code into a fence longer than any that is in it."""
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in _TICKS.findall(code))])
    return f"{fence}{language.lower()}\n{code.rstrip(chr(10))}\n{fence}"


FORMAT = Format(
    name="code",
    description="instruction, context (may be empty), code, language (may be empty)",
    required=("instruction", "code"),
    optional=("context", "language"),
    answer="code",
    convert=convert,
)
