"""Databricks Dolly 15k: ``instruction``, an optional ``context``, ``response``, ``category``.

https://huggingface.co/datasets/databricks/databricks-dolly-15k
"""

from lora_kit.data.format import Format, optional_text, single_turn, text_field
from lora_kit.data.types import Conversation, Row


def convert(row: Row) -> list[Conversation]:
    """One question, one answer; the category is only counted in the report."""
    instruction, response = text_field(row, "instruction"), text_field(row, "response")
    optional_text(row, "category")
    return single_turn(row, instruction, response, context=optional_text(row, "context"))


FORMAT = Format(
    name="dolly",
    description="instruction, context (may be empty), response, category",
    required=("instruction", "response"),
    optional=("context", "category"),
    answer="response",
    convert=convert,
)
