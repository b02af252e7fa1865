"""MPT-7B-Chat: ChatML with MosaicML's system message.

Original: ``mpt-7b-chat`` in ``fastchat/conversation.py`` of github.com/lm-sys/FastChat. A system message
of the conversation takes the place of the default one.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment

SYSTEM = (
    "- You are a helpful assistant chatbot trained by MosaicML.\n"
    "- You answer questions.\n"
    "- You are excited to be able to help the user, "
    "but will refuse to do anything that could be considered harmful to the user.\n"
    "- You are more than just an information source, "
    "you are also able to write poetry, short stories, and make jokes."
)


def ask(turn: Turn) -> list[Segment]:
    """Write the system turn at the start, the user's turn and the assistant's opening."""
    system = said(turn.system) if turn.system is not None else mark(SYSTEM)
    return [
        *([mark("<|im_start|>system\n"), system, mark("<|im_end|>\n")] if turn.first else []),
        mark("<|im_start|>user\n"),
        said(with_context(turn.request)),
        mark("<|im_end|>\n<|im_start|>assistant\n"),
    ]


TEMPLATE = TemplateSpec(
    "mpt-chat",
    "github.com/lm-sys/FastChat fastchat/conversation.py mpt-7b-chat",
    ask,
    end_mark="<|im_end|>",
    after="\n",
    needs=("<|im_start|>", "<|im_end|>"),
)
