"""The README's table of named templates: where each is from, and whether it equals that to the byte."""

from lora_kit.catalogue import TEMPLATES
from lora_kit.data.template_types import TemplateSpec


def templates_markdown() -> str:
    """Return one line per template: name, the original's source, equal to the byte or where it differs."""
    lines = ["| `data.template` | Original | Equal to the byte |", "|---|---|---|"]
    lines += [_line(name, spec) for name, spec in TEMPLATES.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, spec: TemplateSpec) -> str:
    has_original = not spec.source.startswith("lora_kit")
    equal = f"yes, but for: {spec.differs}" if spec.differs else "yes" if has_original else "has no original"
    return f"| `{name}` | {spec.source} | {equal} |"
