"""Guanaco: ``### Human:`` and ``### Assistant:`` in one line, as in the set openassistant-guanaco.

Original: the training texts of ``qlora.py`` (dataset format ``oasst1``) in github.com/artidoro/qlora, without
a system message; ``examples/guanaco_generate.py`` puts one and a blank in front, as is done here with the
conversation's own. The original writes EOS at the end of the conversation only; here it ends every answer,
because a model has to learn to stop after each.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment


def ask(turn: Turn) -> list[Segment]:
    """Write the system message if there is one, the human's turn and the assistant's name."""
    system = [] if turn.system is None else [said(turn.system), mark(" ")]
    return [*system, mark("### Human: "), said(with_context(turn.request)), mark("### Assistant:")]


TEMPLATE = TemplateSpec(
    "guanaco",
    "github.com/artidoro/qlora qlora.py dataset_format oasst1",
    ask,
    lead=" ",
    differs="EOS ends every answer, not the last one alone",
)
