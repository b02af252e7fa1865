"""The prompt and the answer as they are, and EOS; for completion and for continued training on texts."""

from lora_kit.data.template_types import TemplateSpec, Turn, mark, said, with_context
from lora_kit.data.types import Segment


def ask(turn: Turn) -> list[Segment]:
    """Write the system text and the request, with nothing around them but an empty line."""
    system = [] if turn.system is None else [said(turn.system), mark("\n\n")]
    return [*system, said(with_context(turn.request))]


TEMPLATE = TemplateSpec("plain", "lora_kit: no template at all", ask)
