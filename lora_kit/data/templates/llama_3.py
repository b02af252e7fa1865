"""Llama 3: a header and an empty line before each turn, ``<|eot_id|>`` behind it.

Original: ``ChatFormat`` in ``llama/tokenizer.py`` of github.com/meta-llama/llama3, which strips white space
around what is said.
"""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment


def ask(turn: Turn) -> list[Segment]:
    """Write the start of the text, the system turn if there is one, the user's turn and the header."""
    system = (
        [] if turn.system is None else [*_header("system"), said(turn.system.strip()), mark("<|eot_id|>")]
    )
    return [
        *([mark("<|begin_of_text|>")] if turn.first else []),
        *system,
        *_header("user"),
        said(with_context(turn.request).strip()),
        mark("<|eot_id|>"),
        *_header("assistant"),
    ]


def _header(role: str) -> list[Segment]:
    return [mark(f"<|start_header_id|>{role}<|end_header_id|>\n\n")]


TEMPLATE = TemplateSpec(
    "llama-3",
    "github.com/meta-llama/llama3 llama/tokenizer.py ChatFormat",
    ask,
    end_mark="<|eot_id|>",
    strips=True,
    needs=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    writes_bos=True,
)
