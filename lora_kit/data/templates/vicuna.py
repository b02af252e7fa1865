"""Vicuna v1.1: ``USER:`` and ``ASSISTANT:`` in running text, EOS after each answer.

Original: ``vicuna_v1.1`` (``SeparatorStyle.ADD_COLON_TWO``) in ``fastchat/conversation.py`` of
github.com/lm-sys/FastChat. A prompt ends with ``ASSISTANT:``; the blank behind it is the model's to write.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def ask(turn: Turn) -> list[Segment]:
    """Write the system message at the start, the user's turn and the assistant's name."""
    system = said(turn.system) if turn.system is not None else mark(SYSTEM)
    return [
        *([system, mark(" ")] if turn.first else []),
        mark("USER: "),
        said(with_context(turn.request)),
        mark(" ASSISTANT:"),
    ]


TEMPLATE = TemplateSpec(
    "vicuna", "github.com/lm-sys/FastChat fastchat/conversation.py vicuna_v1.1", ask, lead=" "
)
