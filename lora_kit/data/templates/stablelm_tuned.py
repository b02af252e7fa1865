"""StableLM-Tuned-Alpha: a role token before each turn, nothing behind it.

Original: the README of github.com/Stability-AI/StableLM, and ``stablelm`` in ``fastchat/conversation.py`` of
github.com/lm-sys/FastChat for further turns. An answer ends where the user's role token begins the next
turn, which is one of the original's stop tokens; the last one ends with EOS, another of them.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment

SYSTEM = (
    "# StableLM Tuned (Alpha version)\n"
    "- StableLM is a helpful and harmless open-source AI language model developed by StabilityAI.\n"
    "- StableLM is excited to be able to help the user, "
    "but will refuse to do anything that could be considered harmful to the user.\n"
    "- StableLM is more than just an information source, "
    "StableLM is also able to write poetry, short stories, and make jokes.\n"
    "- StableLM will refuse to participate in anything that could harm a human.\n"
)


def ask(turn: Turn) -> list[Segment]:
    """Write the system turn and the user's token at the start, the request and the assistant's token."""
    system = said(turn.system) if turn.system is not None else mark(SYSTEM)
    return [
        *([mark("<|SYSTEM|>"), system, mark("<|USER|>")] if turn.first else []),
        said(with_context(turn.request)),
        mark("<|ASSISTANT|>"),
    ]


TEMPLATE = TemplateSpec(
    "stablelm-tuned",
    "github.com/Stability-AI/StableLM README.md",
    ask,
    next_mark="<|USER|>",
    needs=("<|SYSTEM|>", "<|USER|>", "<|ASSISTANT|>"),
)
