"""A ``prompt`` and its ``completion``, as in OpenAI's first fine-tuning API and TRL.

https://huggingface.co/docs/trl/dataset_formats#prompt-completion
"""

from lora_kit.data.format import Format, single_turn, text_field
from lora_kit.data.types import Conversation, Row


def convert(row: Row) -> list[Conversation]:
    """One question, one answer; lists of messages belong to the format `messages`."""
    return single_turn(row, text_field(row, "prompt"), text_field(row, "completion"))


FORMAT = Format(
    name="prompt_completion",
    description="prompt, completion",
    required=("prompt", "completion"),
    optional=(),
    answer="completion",
    convert=convert,
)
