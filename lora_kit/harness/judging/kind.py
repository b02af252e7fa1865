"""What a way of judging is: how one question to the judge is worded, and how the reply is read.

A judge sees one answer or two in an order; whatever it says becomes a score for each
answer that it saw, or nothing. There is no default score anywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lora_kit.harness.chat_reply import ChatReply

CUT = "length"  # how servers say that a reply was cut at the limit


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the answers answer.

    Args:
        id: Unique among the prompts.
        category: Of the suite.
        cluster: Prompts of one cluster are resampled together.
        question: Its text.
        gold: The suite's own reference; empty if there is none.
    """

    id: str
    category: str
    cluster: str
    question: str
    gold: str = ""


@dataclass(frozen=True, slots=True)
class Showing:
    """One question to a judge.

    Args:
        prompt: What was asked.
        players: Whose answers are shown, in order; one or two names.
        answers: The answers, in the same order.
    """

    prompt: Prompt
    players: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a reply says.

    Args:
        scores: One for each answer, in order of showing; of two, the higher is the better.
        layer: How it was found.
        weight: How often it counts.
    """

    scores: tuple[float, ...]
    layer: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class JudgeKind:
    """A way of judging as a plug-in.

    Args:
        name: Name in the catalogue.
        title: Name for people.
        shown: Answers that the judge sees at once.
        summary: ``scores`` (a mean for each system), ``relative`` (per cent of the other's sum) or
            ``preference`` (win rate).
        highest: Upper end of the scale that the scores are on.
        ask: Words one question, the form of the reply included.
        reminder: Added when a reply could not be read, once.
        read: Finds the ruling in what was said; None if there is none.
        max_tokens: Most that the judge may say.
        verdict_first: The layer that can be trusted in a reply that was cut; empty for none.
        choices: Tokens whose probabilities at the first position are asked for.
        votes: What a person types to what a judge would say; empty where a person can't vote.
        needs_gold: Whether the suite's own reference is shown.
    """

    name: str
    title: str
    shown: Literal[1, 2]
    summary: Literal["scores", "relative", "preference"]
    highest: float
    ask: Callable[[Showing], str]
    reminder: str
    read: Callable[[ChatReply], Ruling | None]
    max_tokens: int
    verdict_first: str = ""
    choices: tuple[str, ...] = ()
    votes: Mapping[str, str] = field(default_factory=dict)
    needs_gold: bool = False

    def ruling(self, reply: ChatReply) -> Ruling | None:
        """Read a reply; one that was cut before its verdict has none, whatever its last line looks like."""
        found = self.read(reply)
        if (
            found is not None
            and reply.finish == CUT
            and not self.choices
            and found.layer != self.verdict_first
        ):
            return None
        return found

    def why_unread(self, reply: ChatReply) -> str:
        """Say why a reply has no ruling."""
        if reply.refusal or reply.finish == "content_filter":
            return "refused"
        if self.choices and not reply.top_logprobs:
            return "no log-probabilities: this server does not give them"
        if not reply.text.strip():
            return "empty"
        return "cut at the limit" if reply.finish == CUT else "no single verdict"
