"""Who is asked, seen from the one who asks: questions in, replies or failures out, in any order."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.client import ChatFailureError
from lora_kit.harness.judging.kind import JudgeKind, Showing


@dataclass(frozen=True, slots=True)
class Question:
    """One request to a judge.

    Args:
        key: Hash of judge and request; the journal's key.
        kind: How it is judged.
        showing: What is judged.
        body: The request as a chat server takes it.
        attempt: 1, or 2 for the one that reminds the judge of the form.
    """

    key: str
    kind: JudgeKind
    showing: Showing
    body: dict[str, Any]
    attempt: int


Answer = ChatReply | ChatFailureError
Answers = Generator[tuple[int, Answer], None, None]


class JudgeBackend(Protocol):
    """Answers questions."""

    @property
    def model(self) -> str:
        """Who judges: a model's name as the server knows it, a person's."""

    @property
    def host(self) -> str:
        """Where; with the model it says on whom a judgment depends."""

    @property
    def costs(self) -> bool:
        """Whether somebody may ask money for it."""

    def answer(self, questions: Sequence[Question]) -> Answers:
        """Answer all; yields ``(index, reply or failure)`` once each, as they come; closing ends the rest."""

    def close(self) -> None:
        """Let go of connections."""
