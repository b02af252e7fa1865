"""Asks a judge what the journal does not know, in two passes: everything, then the unreadable once more.

A question's key is the hash of judge and request, so nothing that has a readable reply is
ever asked again, whichever run got it. The second pass comes after the first, with a
reminder of the form; what is unreadable then stays without a score, and the next run asks again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from lora_kit.errors import RecipeError
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.engine import Progress
from lora_kit.harness.journal import Journal
from lora_kit.harness.judging.backend import Answer, JudgeBackend, Question
from lora_kit.harness.judging.kind import JudgeKind, Ruling, Showing
from lora_kit.harness.judging.record import record_of, reply_of

KEY_VERSION = 1
TOP_LOGPROBS = 5
OURS = ("model", "messages", "stream", "n", "logprobs", "top_logprobs")


@dataclass(frozen=True, slots=True)
class Judgment:
    """What came of one showing.

    Args:
        showing: What was judged.
        ruling: None if it was not judged.
        replies: What the judge said, one for each attempt that was answered.
        why: Why there is no ruling, or no reply at all; empty if there is a ruling.
        keys: The replies' keys in the journal.
    """

    showing: Showing
    ruling: Ruling | None
    replies: tuple[ChatReply, ...]
    why: str = ""
    keys: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """``parsed``, ``unparsed`` or ``error``, never a score."""
        if self.ruling is not None:
            return "parsed"
        return "unparsed" if self.replies else "error"


@dataclass(frozen=True, slots=True)
class AskSettings:
    """What a request says besides the prompt.

    Args:
        temperature: Of the judge.
        max_tokens: Most that it may say; None for the kind's own.
        extra: More fields of the request; a field that is None is left out of it.
    """

    temperature: float = 0.0
    max_tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_extra(text: str) -> dict[str, Any]:
    """Read more fields of a request from JSON.

    Raises:
        RecipeError: Not a JSON object, or a field that is not the user's to set.
    """
    try:
        extra = json.loads(text)
    except (ValueError, RecursionError):
        extra = None
    if not isinstance(extra, dict):
        raise RecipeError("not a JSON object", key="--request", cure="""such as '{"seed": 1}'""")
    for name in OURS:
        if name in extra:
            raise RecipeError(f"'{name}' can't be set here", key="--request")
    return extra


class Asking:
    """One judge, one kind, one journal.

    Args:
        kind: How to judge.
        backend: Whom to ask.
        journal: What is known already; every new reply is added at once.
        settings: Of the requests.
        on_reply: Told of each new reply.
    """

    def __init__(
        self,
        kind: JudgeKind,
        backend: JudgeBackend,
        journal: Journal,
        settings: AskSettings | None = None,
        *,
        on_reply: Callable[[Question, ChatReply], None] = lambda _, __: None,
    ) -> None:
        self._kind = kind
        self._backend = backend
        self._journal = journal
        self._settings = settings or AskSettings()
        self._on_reply = on_reply
        self._failures: dict[str, str] = {}
        self._questions: dict[tuple[Showing, int], Question] = {}
        self.asked = 0

    def missing(self, showings: Sequence[Showing]) -> list[Question]:
        """The first-pass questions that have to be asked: no readable reply, and no reminder outstanding."""
        found = []
        for showing in showings:
            first, second = self.question(showing, 1), self.question(showing, 2)
            only_reminder = self._journal.get(first.key) and not self._journal.get(second.key)
            if self._ruling(showing) is None and not only_reminder:
                found.append(first)
        return _unique(found)

    def unreadable(self, showings: Sequence[Showing]) -> list[Question]:
        """The second-pass questions: there is a reply, and it can't be read."""
        return _unique(
            [
                self.question(showing, 2)
                for showing in showings
                if self._ruling(showing) is None and self._journal.get(self.question(showing, 1).key)
            ]
        )

    def ask(
        self,
        showings: Sequence[Showing],
        *,
        on_progress: Progress | None = None,
        may_ask: Callable[[Sequence[Question]], bool] = lambda _: True,
    ) -> list[Judgment]:
        """Judge all, in the given order.

        Args:
            showings: What is judged.
            on_progress: Told (done, total), known ones included.
            may_ask: Asked before the second pass; False leaves it out.

        Raises:
            MachineError: The journal can't be written.
        """
        first = self.missing(showings)
        self._pass(first, len(showings), on_progress)
        again = self.unreadable(showings)
        if again and may_ask(again):
            self._pass(again, len(showings), on_progress)
        return [self._judgment(showing) for showing in showings]

    def question(self, showing: Showing, attempt: int) -> Question:
        """The request for a showing."""
        place = (showing, attempt)
        if place not in self._questions:
            self._questions[place] = self._build(showing, attempt)
        return self._questions[place]

    def _build(self, showing: Showing, attempt: int) -> Question:
        text = self._kind.ask(showing)
        text = text if attempt == 1 else f"{text}\n\n{self._kind.reminder}"
        body: dict[str, Any] = {
            "model": self._backend.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens or self._kind.max_tokens,
        }
        if self._kind.choices:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        merged = {**body, **self._settings.extra}
        body = {name: value for name, value in merged.items() if value is not None}
        request = json.dumps([KEY_VERSION, self._backend.host, self._kind.name, body], sort_keys=True)
        key = hashlib.sha256(request.encode("ascii")).hexdigest()
        return Question(key, self._kind, showing, body, attempt)

    def _pass(self, questions: Sequence[Question], total: int, on_progress: Progress | None) -> None:
        done = total - len(questions)
        with closing(self._backend.answer(questions)) as answers:  # whatever is raised here ends the asking
            for index, answer in answers:
                self._keep(questions[index], answer)
                done += 1
                if on_progress is not None:
                    on_progress(done, total)

    def _keep(self, question: Question, answer: Answer) -> None:
        if isinstance(answer, ChatReply):
            self.asked += 1
            self._on_reply(question, answer)
            self._journal.add(question.key, record_of(question, answer, self._backend))
        else:
            self._failures[question.key] = answer.reason

    def _replies(self, showing: Showing) -> list[ChatReply]:
        records = [self._journal.get(self.question(showing, attempt).key) for attempt in (1, 2)]
        return [reply_of(record) for record in records if record is not None]

    def _ruling(self, showing: Showing) -> Ruling | None:
        rulings = [self._kind.ruling(reply) for reply in self._replies(showing)]
        return next((ruling for ruling in rulings if ruling is not None), None)

    def _judgment(self, showing: Showing) -> Judgment:
        replies, ruling = tuple(self._replies(showing)), self._ruling(showing)
        keys = tuple(key for at in (1, 2) if self._journal.get(key := self.question(showing, at).key))
        if ruling is not None:
            return Judgment(showing, ruling, replies, keys=keys)
        if replies:
            return Judgment(showing, None, replies, self._kind.why_unread(replies[-1]), keys)
        return Judgment(showing, None, (), self._failures.get(self.question(showing, 1).key, "not asked"))


def _unique(questions: Sequence[Question]) -> list[Question]:
    """Each request once: two equal answers give the same prompt in both orders."""
    return list({question.key: question for question in questions}.values())
