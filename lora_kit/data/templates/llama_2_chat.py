"""Llama 2 Chat: ``[INST] request [/INST] answer``, BOS and EOS around every exchange.

Original: ``Llama.chat_completion`` in ``llama/generation.py`` of github.com/meta-llama/llama, which strips
white space around what is said, puts the system message into the first request, and opens every
exchange with BOS (the one template here with more than one).
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment


def ask(turn: Turn) -> list[Segment]:
    """Write BOS and the request between its brackets."""
    request = with_context(turn.request)
    if turn.system is None:
        words = [said(request.strip())]
    else:
        # The original strips system and request as one text: blanks before the request stay.
        words = [mark("<<SYS>>\n"), said(turn.system), mark("\n<</SYS>>\n\n"), said(request.rstrip())]
    return [mark(f"{turn.bos}[INST] "), *words, mark(" [/INST]")]


TEMPLATE = TemplateSpec(
    "llama-2-chat",
    "github.com/meta-llama/llama llama/generation.py Llama.chat_completion",
    ask,
    lead=" ",
    tail=" ",
    strips=True,
    writes_bos=True,
)
