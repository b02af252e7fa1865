"""Stanford Alpaca's prompt, with and without input.

Original: ``PROMPT_DICT`` in ``train.py`` of github.com/tatsu-lab/stanford_alpaca. The answer follows
``### Response:`` without a line break, as it does there, and EOS ends it. The original knows neither
system messages nor second turns: a system message replaces the opening sentence, and a further turn
repeats the sections without it.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said
from lora_kit.data.types import Segment

TASK = "Below is an instruction that describes a task"
REQUEST = "Write a response that appropriately completes the request."
WITH_INPUT = f"{TASK}, paired with an input that provides further context. {REQUEST}"
WITHOUT_INPUT = f"{TASK}. {REQUEST}"


def ask(turn: Turn) -> list[Segment]:
    """Write the instruction, its input if there is one, and the response's heading."""
    opening = [said(turn.system)] if turn.system is not None else []
    if turn.first and not opening:
        opening = [mark(WITH_INPUT if turn.request.context else WITHOUT_INPUT)]
    given = [mark("\n\n### Input:\n"), said(turn.request.context)] if turn.request.context else []
    return [
        *opening,
        mark("\n\n### Instruction:\n"),
        said(turn.request.content),
        *given,
        mark("\n\n### Response:"),
    ]


TEMPLATE = TemplateSpec(
    "alpaca",
    "github.com/tatsu-lab/stanford_alpaca train.py PROMPT_DICT",
    ask,
    differs="system messages and further turns, which the original lacks",
)
