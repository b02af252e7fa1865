"""What answers prompts and measures likelihoods, seen from the harness.

An engine yields each result as soon as it has it, in the order that is fastest for
it, so that a cut evaluation keeps what was done. Its fingerprint says everything
that its answers depend on besides the prompt; answers are kept under it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lora_kit.data.types import Conversation, Message

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer.

    Args:
        text: What was said, without the end mark.
        tokens: Generated tokens, the end mark included.
        stopped: Whether the model ended by itself rather than at the limit.
    """

    text: str
    tokens: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How probable a given answer is.

    Args:
        nats: Negative log-likelihood summed over the answer and its end mark, natural log.
        tokens: Tokens that the sum is over.
        utf8_bytes: Length of the answer's text, the same for every tokenizer.
    """

    nats: float
    tokens: int
    utf8_bytes: int


class Engine(Protocol):
    """Answers prompts; may measure likelihoods."""

    @property
    def name(self) -> str:
        """What to call it in a table."""

    @property
    def fingerprint(self) -> str:
        """Hash (hex) of all that its results depend on: weights, adapter, template, number type."""

    @property
    def measures_likelihood(self) -> bool:
        """Whether ``likelihood`` may be called; false for answers from a file or a bare chat endpoint."""

    def generate(
        self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[tuple[int, Generation]]:
        """Answer each prompt; yields ``(index of the prompt, answer)`` once each, in any order.

        Raises:
            DataError: A prompt does not fit the model.
        """

    def likelihood(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, Likelihood]]:
        """Measure the trained answers of each conversation; yields ``(index, likelihood)`` in any order.

        Raises:
            DataError: A conversation does not fit the model.
        """


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine as a plug-in.

    Args:
        name: Name in the catalogue.
        description: One line.
        build: Makes an engine; what it takes is the engine's own matter.
    """

    name: str
    description: str
    build: Callable[..., Engine]
