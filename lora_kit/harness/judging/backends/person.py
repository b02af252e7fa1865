"""A person as the judge: blind votes in a terminal, no names shown, resumable like any other judge.

A vote becomes the reply that a model would have given, so that everything after it is the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lora_kit.errors import RecipeError
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.client import ChatFailureError
from lora_kit.harness.judging.backend import Answers, Question

SKIP, QUIT = "s", "q"


@dataclass(frozen=True, slots=True)
class Terminal:
    """How to talk to a person.

    Args:
        show: Shows a question: heading and text of each part.
        read: Shows a prompt and returns what was typed; raises EOFError when nobody is there.
    """

    show: Callable[[Sequence[tuple[str, str]]], None]
    read: Callable[[str], str]


class PersonJudge:
    """Somebody at a keyboard.

    Args:
        name: Who votes; two people's votes are kept apart.
        terminal: Where.
    """

    host = "person"
    costs = False

    def __init__(self, name: str, terminal: Terminal) -> None:
        self.model = name
        self._terminal = terminal

    def answer(self, questions: Sequence[Question]) -> Answers:
        """Ask one question after another until the person quits.

        Raises:
            RecipeError: A person can't vote in this kind.
        """
        if questions and not questions[0].kind.votes:
            cure = "use --kind pairwise, five_level, single or reference_guided"
            raise RecipeError(f"a person can't vote in '{questions[0].kind.name}'", cure=cure)
        is_here = True
        for index, question in enumerate(questions):
            typed = self._vote(question, index, len(questions)) if is_here else QUIT
            is_here = typed != QUIT
            if typed in question.kind.votes:
                yield index, ChatReply(question.kind.votes[typed], self.model)
            else:
                reason = "skipped" if typed == SKIP else "not voted on yet"
                yield index, ChatFailureError(reason, is_final=True, is_about_one=True)

    def close(self) -> None:
        """Nothing to let go of."""

    def _vote(self, question: Question, index: int, total: int) -> str:
        showing = question.showing
        parts = [(f"Question {index + 1} of {total}", showing.prompt.question)]
        if question.kind.needs_gold:
            parts.append(("Correct answer", showing.prompt.gold))
        names = [f"Answer {number}" for number in (1, 2)] if len(showing.answers) == 2 else ["Answer"]
        self._terminal.show([*parts, *zip(names, showing.answers, strict=True)])
        choices = ", ".join(f"{key} = {said.strip('[]')}" for key, said in question.kind.votes.items())
        if question.kind.name == "pairwise":
            choices = "1 = the first, 2 = the second, 3 = tie"
        while True:
            try:
                typed = self._terminal.read(f"{choices}, {SKIP} = skip, {QUIT} = quit").strip().lower()
            except EOFError:
                return QUIT
            if typed in question.kind.votes or typed in {SKIP, QUIT}:
                return typed
