"""StarChat: a role token and a line for each turn, ``<|end|>`` behind it.

Original: ``DialogueTemplate`` and ``no_system_template`` in ``chat/dialogues.py`` of
github.com/bigcode-project/starcoder: the system turn is always there, empty by default, and a prompt ends
with the bare assistant token, so that the line break behind it is the model's to write.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment


def ask(turn: Turn) -> list[Segment]:
    """Write the system turn at the start, the user's turn and the assistant's token."""
    system = [mark("<|system|>\n"), said(turn.system or ""), mark("<|end|>\n")] if turn.first else []
    return [
        *system,
        mark("<|user|>\n"),
        said(with_context(turn.request)),
        mark("<|end|>\n<|assistant|>"),
    ]


TEMPLATE = TemplateSpec(
    "starchat",
    "github.com/bigcode-project/starcoder chat/dialogues.py DialogueTemplate",
    ask,
    lead="\n",
    end_mark="<|end|>",
    after="\n",
    needs=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
)
