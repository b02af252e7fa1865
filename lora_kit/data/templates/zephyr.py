"""Zephyr: a role name and a line for each turn, EOS and a line break behind it.

Original: ``DEFAULT_CHAT_TEMPLATE`` in ``src/alignment/data.py`` of github.com/huggingface/alignment-handbook.
The role names are plain text there too. No system turn unless there is a system message.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment


def ask(turn: Turn) -> list[Segment]:
    """Write the system turn if there is one, the user's turn and the assistant's name."""
    system = [] if turn.system is None else [mark("<|system|>\n"), said(turn.system), mark(f"{turn.eos}\n")]
    return [
        *system,
        mark("<|user|>\n"),
        said(with_context(turn.request)),
        mark(f"{turn.eos}\n<|assistant|>\n"),
    ]


TEMPLATE = TemplateSpec(
    "zephyr",
    "github.com/huggingface/alignment-handbook src/alignment/data.py DEFAULT_CHAT_TEMPLATE",
    ask,
    after="\n",
)
