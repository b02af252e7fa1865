"""Answers that somebody else's model gave, from a file: ChatGPT's, a colleague's, last year's.

Rows are ``{"id", "answer"}`` with the ids of the suite; other fields may be there. Every
prompt needs an answer, and a file that is edited is another engine.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from lora_kit.data.format import text_field
from lora_kit.data.sources import read_rows
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import DataError, Problem
from lora_kit.harness.engine import EngineKind, Generation, Likelihood
from lora_kit.harness.suite import Suite

SHOWN_PROBLEMS = 20
Turns = tuple[Message, ...]


class FileEngine:
    """Recorded answers to a suite.

    Args:
        name: What to call it in a table.
        answers: By the messages of the prompt.
    """

    measures_likelihood = False

    def __init__(self, name: str, answers: Mapping[Turns, str]) -> None:
        self.name = name
        self._answers = dict(answers)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all prompts and answers."""
        rows = [
            [[(turn.role, turn.content, turn.context) for turn in turns], answer]
            for turns, answer in self._answers.items()
        ]
        return hashlib.sha256(json.dumps(["file-1", rows]).encode("ascii")).hexdigest()

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,  # noqa: ARG002 - nothing is generated
        batch_size: int,  # noqa: ARG002
    ) -> Iterator[tuple[int, Generation]]:
        """Look each answer up; neither limit applies, since nothing is generated.

        Raises:
            DataError: A prompt is not in the suite that the answers are for.
        """
        for index, prompt in enumerate(prompts):
            answer = self._answers.get(tuple(prompt))
            if answer is None:
                raise DataError(f"{self.name} has no answer to this prompt", where=f"prompt {index + 1}")
            yield index, Generation(answer, tokens=0, stopped=True)

    def likelihood(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, Likelihood]]:
        """A file does not say how probable a given answer is.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{self.name} is a file of answers")


def open_answers(path: Path, suite: Suite, *, name: str = "") -> FileEngine:
    """Read a file of answers to a suite.

    Args:
        path: Rows of ``{"id", "answer"}``.
        suite: Whose ids they have.
        name: What to call it; the file's name without its ending if empty.

    Raises:
        DataError: A broken row, an id twice, a prompt without an answer, an answer without a prompt, or two
            equal prompts with different answers (all problems at once).
    """
    problems: list[Problem] = []
    found = _read(path, problems)
    answers: dict[Turns, str] = {}
    for item in suite.items:
        answer = found.get(item.id)
        if answer is None:
            problems.append(Problem(f"no answer to prompt '{item.id}' of suite {suite.name}", path.name))
        elif answers.setdefault(item.messages, answer) != answer:
            problems.append(Problem(f"prompt '{item.id}' occurs twice, with different answers", path.name))
    known = {item.id for item in suite.items}
    surplus = [name for name in found if name not in known]
    problems += [
        Problem(f"answer '{n}' has no prompt in suite {suite.name}", path.name, "id") for n in surplus
    ]
    if problems:
        rest = len(problems) - SHOWN_PROBLEMS
        more = [Problem(f"... and {rest} more")] if rest > 0 else []
        raise DataError.collect([*problems[:SHOWN_PROBLEMS], *more])
    return FileEngine(name or path.name.partition(".")[0], answers)


def _read(path: Path, problems: list[Problem]) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in read_rows(path, on_problem=problems.append):
        try:
            name, answer = text_field(row, "id"), text_field(row, "answer")
        except DataError as error:
            problems.extend(error.problems)
            continue
        if name in found:
            problems.append(Problem(f"id '{name}' twice", row.origin, "id"))
        found[name] = answer
    return found


ENGINE = EngineKind("file", "answers from a file", open_answers)
