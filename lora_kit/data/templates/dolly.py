"""Databricks' Dolly v2 prompt, with and without context.

Original: ``PROMPT_NO_INPUT_FORMAT`` and ``PROMPT_WITH_INPUT_FORMAT`` in ``training/consts.py`` of
github.com/databrickslabs/dolly. There ``### End`` is a token of its own and ends the answer; a base
whose tokenizer lacks it could not stop on it, so EOS follows. A system message replaces the opening
sentence, and a further turn repeats the sections without it; the original has neither.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said
from lora_kit.data.types import Segment

TASK = "Below is an instruction that describes a task."
INTRO = f"{TASK} Write a response that appropriately completes the request."


def ask(turn: Turn) -> list[Segment]:
    """Write the instruction, its context if there is one, and the response's heading."""
    opening = [said(turn.system)] if turn.system is not None else []
    if turn.first and not opening:
        opening = [mark(INTRO)]
    given = [mark("\n\nInput:\n"), said(turn.request.context)] if turn.request.context else []
    return [
        *opening,
        mark("\n\n### Instruction:\n"),
        said(turn.request.content),
        *given,
        mark("\n\n### Response:\n"),
    ]


TEMPLATE = TemplateSpec(
    "dolly",
    "github.com/databrickslabs/dolly training/consts.py PROMPT_*_FORMAT",
    ask,
    tail="\n\n### End",
    differs="EOS behind ### End; system messages and further turns, which the original lacks",
)
