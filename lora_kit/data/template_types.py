"""What a template is, and the pieces that named templates are made of.

A template turns messages into segments. Everything that the model has to write for itself (what
stands between the prompt and the answer, the answer, its end mark) is the *answer span*, marked
trained; so training and serving agree on where the prompt ends by construction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lora_kit.data.types import Message, Segment
from lora_kit.errors import ModelError


class Template(Protocol):
    """How a conversation becomes text.

    Attributes:
        name: As in the recipe.
        fingerprint: 64 hex digits; changes with every change of what is rendered.
        answer_lead: Text that the model writes before each answer; not part of it.
        answer_tail: Text that the model writes after each answer, before the end mark.
        stop_ids: Token ids that end an answer.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def answer_lead(self) -> str: ...  # noqa: D102
    @property
    def answer_tail(self) -> str: ...  # noqa: D102
    @property
    def stop_ids(self) -> frozenset[int]: ...  # noqa: D102

    def render(self, messages: Sequence[Message], *, generation_prompt: bool) -> list[Segment]:
        """Write messages as segments.

        Args:
            messages: An optional system turn, then user and assistant in turn.
            generation_prompt: Whether to end where the assistant speaks next (the last
                message is the user's); False for a complete conversation.

        Returns:
            Segments; ``trained`` marks the answer span of *every* assistant turn, one
            maximal run of marked segments for each. ``Message.train`` is the encoder's affair:
            it must not move the cuts, or a prompt would encode otherwise than in training.

        Raises:
            ModelError: The template can't write these messages.
        """
        ...

    def render_many(
        self, conversations: Sequence[Sequence[Message]], *, generation_prompt: bool
    ) -> Sequence[list[Segment] | ModelError]:
        """Write many; those that the template can't write become errors in their place."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What a named template knows when it writes the text before an answer.

    Args:
        request: The user's message.
        system: The system message, in the first turn only.
        first: Whether the text starts here.
        bos: Text of the BOS token, empty if the tokenizer puts none before a text.
        eos: Text of the EOS token.
    """

    request: Message
    system: str | None
    first: bool
    bos: str
    eos: str


@dataclass(frozen=True, slots=True)
class TemplateSpec:
    """A named template: literals and one function, independent of any tokenizer.

    Args:
        name: Key in ``catalogue.TEMPLATES``.
        source: Where the original is defined (repository and file).
        ask: Writes everything between the end of the last answer (or the start of the text)
            and the place where the model speaks.
        lead: What the model writes before the answer.
        tail: What the model writes after the answer, before the end mark.
        end_mark: The control token that ends an answer; empty for the tokenizer's EOS.
        next_mark: The control token that ends an answer in its place when another request follows,
            and opens that request; empty if there is none.
        after: Untrained text after the end mark.
        strips: Whether answers lose white space at their ends, as in the original.
        needs: Control tokens without which the template is not itself.
        writes_bos: ``ask`` places BOS; otherwise it opens the text iff the tokenizer does so.
        differs: Where the text is not the original's; empty if it is equal to the byte.
    """

    name: str
    source: str
    ask: Callable[[Turn], list[Segment]]
    lead: str = ""
    tail: str = ""
    end_mark: str = ""
    next_mark: str = ""
    after: str = ""
    strips: bool = False
    needs: tuple[str, ...] = ()
    writes_bos: bool = False
    differs: str = ""


def mark(text: str) -> Segment:
    """Text of the template."""
    return Segment(text, control=True, trained=False)


def said(text: str) -> Segment:
    """Text of the user or the system message; never a control token."""
    return Segment(text, control=False, trained=False)


def with_context(message: Message) -> str:
    """What a chat template without a place for context shows as the user's words."""
    return f"{message.content}\n\n{message.context}" if message.context else message.content
