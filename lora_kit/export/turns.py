"""What a template writes around the turns of a conversation, found by rendering stand-ins.

Chat programs hold a template as text in a language of their own (Jinja in GGUF, Go's in Ollama). Both are
generated from the pieces found here, so that there is one original: the template that was trained with.
That the pieces are the whole truth is proven on longer conversations; a template that is more than pieces
(it looks into what is said, counts turns, knows the date) is refused.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from lora_kit.data.template_types import Template
from lora_kit.data.types import Message, Role
from lora_kit.errors import ModelError

_CURE = "export it with --to safetensors, or train with a named template (data.template)"


@dataclass(frozen=True, slots=True)
class Turns:
    """The text around turns.

    Args:
        system: Before a system message.
        first: Before the first request of a conversation without a system message.
        after_system: Between the system message and the first request.
        prompt: Behind a request, up to where the model speaks.
        lead: What the model writes before its answer.
        between: Behind an answer, up to the next request: its end mark and what follows.
        end: Behind the last answer.
        trims: Whether blanks at the ends of messages are cut.
    """

    system: str
    first: str
    after_system: str
    prompt: str
    lead: str
    between: str
    end: str
    trims: bool

    def text(self, messages: Sequence[Message]) -> str:
        """Compose a conversation; one that ends with a request ends where the model speaks."""
        has_system = messages[0].role == "system"
        parts = []
        for n, message in enumerate(messages):
            content = message.content.strip() if self.trims else message.content
            if message.role == "system":
                parts.append(self.system + content)
            elif message.role == "user":
                opening = (
                    self.first if n == 0 else self.after_system if has_system and n == 1 else self.between
                )
                parts.append(opening + content + self.prompt)
            else:
                parts.append(self.lead + content + (self.end if n == len(messages) - 1 else ""))
        return "".join(parts)


def find_turns(template: Template, *, needs_system: bool = False) -> Turns:
    """Find the pieces of a template.

    Args:
        template: Any template, tied to its tokenizer.
        needs_system: Whether a template that takes no system message is an error.

    Raises:
        ModelError: The template is more than pieces around turns.
    """
    plain = _literals(template, ("user", "assistant", "user", "assistant"))
    prompt = _literals(template, ("user",))
    try:
        led = _literals(template, ("system", "user", "assistant"))
    except ModelError:
        if needs_system:
            raise
        led = ["", "", *plain[1:2], ""]
    turns = Turns(
        system=led[0],
        first=plain[0],
        after_system=led[1],
        prompt=prompt[1],
        lead=plain[1].removeprefix(prompt[1]),
        between=plain[2],
        end=plain[4],
        trims=trims(template),
    )
    _prove(template, turns, has_system=bool(led[0] or led[1]))
    return turns


def render_text(template: Template, messages: Sequence[Message]) -> str:
    """The text that a template makes of messages."""
    asks = messages[-1].role == "user"
    return "".join(segment.text for segment in template.render(messages, generation_prompt=asks))


def _stand_ins(roles: Sequence[Role]) -> list[Message]:
    return [Message(role, f"q{secrets.token_hex(8)}z") for role in roles]


def _literals(template: Template, roles: Sequence[Role]) -> list[str]:
    """Render stand-ins; return the text before, between and behind them."""
    messages = _stand_ins(roles)
    text = render_text(template, messages)
    pieces = re.split("|".join(message.content for message in messages), text)
    order = re.findall("|".join(message.content for message in messages), text)
    if order != [message.content for message in messages]:
        raise ModelError("the template leaves out, repeats or reorders messages", cure=_CURE)
    return pieces


def trims(template: Template) -> bool:
    """Whether a template cuts blanks at the ends of what is said."""
    [message] = _stand_ins(("user",))
    said = f"\t{message.content}\t"  # white space that no template writes
    return said not in render_text(template, [Message("user", said)])


def _prove(template: Template, turns: Turns, *, has_system: bool) -> None:
    long: tuple[Role, ...] = ("user", "assistant") * 4
    shapes: list[tuple[Role, ...]] = [long[:count] for count in range(1, 9)]
    shapes += [("system", *shape) for shape in shapes] if has_system else []
    for shape in shapes:
        messages = _stand_ins(shape)
        if render_text(template, messages) != turns.text(messages):
            raise ModelError(
                f"the template '{template.name}' is more than text around turns",
                key="data.template",
                cure=_CURE,
            )
