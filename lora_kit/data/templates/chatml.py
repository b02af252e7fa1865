"""ChatML: every turn between ``<|im_start|>role`` and ``<|im_end|>``, one turn a line.

Original: ``SeparatorStyle.CHATML`` in ``fastchat/conversation.py`` of github.com/lm-sys/FastChat; the same
bytes come from the chat templates of Qwen and SmolLM2. No system turn unless there is a system message.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment


def ask(turn: Turn) -> list[Segment]:
    """Write the system turn if there is one, the user's turn and the assistant's opening."""
    system = (
        [] if turn.system is None else [mark("<|im_start|>system\n"), said(turn.system), mark("<|im_end|>\n")]
    )
    return [
        *system,
        mark("<|im_start|>user\n"),
        said(with_context(turn.request)),
        mark("<|im_end|>\n<|im_start|>assistant\n"),
    ]


TEMPLATE = TemplateSpec(
    "chatml",
    "github.com/lm-sys/FastChat fastchat/conversation.py SeparatorStyle.CHATML",
    ask,
    end_mark="<|im_end|>",
    after="\n",
    needs=("<|im_start|>", "<|im_end|>"),
)
