"""Open-Assistant: a role token before each turn, EOS behind it.

Original: ``format_pairs`` and ``format_system_prefix`` in
``model/model_training/custom_datasets/formatting.py`` of github.com/LAION-AI/Open-Assistant. There the role
tokens were added to the tokenizer; a base that lacks them reads them as plain text, which works as well.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment


def ask(turn: Turn) -> list[Segment]:
    """Write the system turn if there is one, the prompter's turn and the assistant's role token."""
    system = [] if turn.system is None else [mark("<|system|>"), said(turn.system), mark(turn.eos)]
    return [
        *system,
        mark("<|prompter|>"),
        said(with_context(turn.request)),
        mark(f"{turn.eos}<|assistant|>"),
    ]


TEMPLATE = TemplateSpec(
    "open-assistant",
    "github.com/LAION-AI/Open-Assistant model/model_training/custom_datasets/formatting.py format_pairs",
    ask,
)
