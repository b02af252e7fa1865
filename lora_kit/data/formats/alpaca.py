"""Stanford Alpaca: ``instruction``, an optional ``input`` that it is about, ``output``.

https://github.com/tatsu-lab/stanford_alpaca#data-release
"""

from lora_kit.data.format import Format, optional_text, single_turn, text_field
from lora_kit.data.types import Conversation, Row


def convert(row: Row) -> list[Conversation]:
    """One question, one answer; ``input`` is the question's context."""
    instruction, output = text_field(row, "instruction"), text_field(row, "output")
    return single_turn(row, instruction, output, context=optional_text(row, "input"))


FORMAT = Format(
    name="alpaca",
    description="instruction, input (may be empty), output",
    required=("instruction", "output"),
    optional=("input",),
    answer="output",
    convert=convert,
)
