"""ChatML: every turn between ``<|im_start|>role`` and ``<|im_end|>``.

Original: ``chatml.md`` of github.com/openai/openai-python (v0.27), with the line break that all its open
users put after ``<|im_end|>`` (MPT-Chat, Qwen, SmolLM2). No default system message.
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
    "github.com/openai/openai-python v0.27 chatml.md",
    ask,
    end_mark="<|im_end|>",
    after="\n",
    needs=("<|im_start|>", "<|im_end|>"),
)
