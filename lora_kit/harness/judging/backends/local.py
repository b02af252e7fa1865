"""A model in this process as the judge, through the same engine that answers suites.

For a kind that asks for probabilities, the engine's own likelihood of each choice is
taken: exact, over the whole choice and its end mark, where a server shows five tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from lora_kit.data.types import Conversation, Message
from lora_kit.errors import DataError, RecipeError
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.client import ChatFailureError
from lora_kit.harness.engine import Engine
from lora_kit.harness.judging.backend import Answer, Answers, Question


class LocalJudge:
    """An engine as the judge; greedy.

    Args:
        engine: The model.
        batch_size: Questions at once.
    """

    costs = False

    def __init__(self, engine: Engine, *, batch_size: int = 8) -> None:
        self.model = engine.name
        self.host = f"local:{engine.fingerprint}"
        self._engine = engine
        self._batch_size = batch_size

    def answer(self, questions: Sequence[Question]) -> Answers:
        """Ask the model; a question that does not fit it is a failure of that question.

        Raises:
            RecipeError: The kind needs probabilities and the engine has none.
        """
        if questions and questions[0].kind.choices:
            yield from self._choose(questions)
            return
        done = set()
        try:
            for index, reply in self._generate(questions):
                done.add(index)
                yield index, reply
        except DataError:  # one of them does not fit, which must not cost the others
            for index, question in enumerate(questions):
                if index not in done:
                    yield index, self._alone(question)

    def close(self) -> None:
        """Nothing to let go of."""

    def _generate(self, questions: Sequence[Question]) -> Iterator[tuple[int, ChatReply]]:
        prompts = [_messages(question.body) for question in questions]
        limit = max((question.body["max_tokens"] for question in questions), default=1)
        for index, said in self._engine.generate(prompts, max_new_tokens=limit, batch_size=self._batch_size):
            finish = "stop" if said.stopped else "length"
            yield index, ChatReply(said.text, self.model, finish, completion_tokens=said.tokens)

    def _alone(self, question: Question) -> Answer:
        try:
            return next(reply for _, reply in self._generate([question]))
        except DataError as error:
            return ChatFailureError(str(error), is_final=True, is_about_one=True)

    def _choose(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        if not self._engine.measures_likelihood:
            raise RecipeError(f"{self.model} can't say how probable an answer is", cure="use another --kind")
        for index, question in enumerate(questions):
            choices = question.kind.choices
            said = [
                Conversation((*_messages(question.body), Message("assistant", choice)), "judge")
                for choice in choices
            ]
            try:
                nats = {choices[at]: found.nats for at, found in self._engine.likelihood(said)}
            except DataError as error:
                yield index, ChatFailureError(str(error), is_final=True, is_about_one=True)
                continue
            best = min(choices, key=nats.__getitem__)
            yield index, ChatReply(best, self.model, top_logprobs={name: -nats[name] for name in choices})


def _messages(body: dict[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"], train=False) for turn in body["messages"])
