"""Asks engines what the journal does not know yet, and scores each answer.

A likelihood that is not finite is no score: the others are kept, then the evaluation
ends as incomplete, naming model and items (exit 7), and asks for them again next time.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lora_kit.catalogue import METRICS
from lora_kit.errors import IncompleteError, Problem
from lora_kit.harness.engine import Engine, Generation, Likelihood, Progress
from lora_kit.harness.journal import Journal, key_of
from lora_kit.harness.measures import metrics_of
from lora_kit.harness.results import Answer
from lora_kit.harness.suite import Item, Suite
from lora_kit.recipe.schema import EvaluateSpec

SHOWN_PROBLEMS = 20


@dataclass
class Counter:
    """Progress in results: an answer is one, a likelihood is one."""

    total: int
    listener: Progress | None
    done: int = 0

    def step(self, count: int = 1) -> None:
        """Count, and tell the listener."""
        self.done += count
        if self.listener is not None and count:
            self.listener(self.done, self.total)


@dataclass(frozen=True)
class Asking:
    """One evaluation's questions.

    Args:
        suite: What is asked.
        spec: How much may be answered, and how much at once.
        journal: What is known already.
        counter: Told of each result, known or new.
    """

    suite: Suite
    spec: EvaluateSpec
    journal: Journal
    counter: Counter

    def answers(self, engine: Engine) -> list[Answer]:
        """Every item's answer, in the order of the suite.

        Raises:
            DataError: A prompt does not fit the model.
            IncompleteError: A likelihood is not finite.
            MachineError: The journal can't be written.
        """
        generations = self.generations(engine)
        likelihoods = self._likelihoods(engine) if engine.measures_likelihood else [None] * len(generations)
        rows = zip(self.suite.items, generations, likelihoods, strict=True)
        metrics = metrics_of(self.suite)
        return [_answer(item, generation, likelihood, metrics) for item, generation, likelihood in rows]

    def generations(self, engine: Engine) -> list[Generation]:
        """What the engine says to every item, in the order of the suite."""
        limit = self.spec.max_new_tokens
        keys = [key_of("answer", engine.fingerprint, item.fingerprint, limit) for item in self.suite.items]
        missing = self._missing(keys)
        prompts = [self.suite.items[at].messages for at in missing]
        for index, answer in engine.generate(prompts, max_new_tokens=limit, batch_size=self.spec.batch_size):
            self._keep(keys, missing[index], engine, answer)
        return [Generation(**self._record(key, Generation)) for key in keys]

    def _likelihoods(self, engine: Engine) -> list[Likelihood | None]:
        items = self.suite.items
        keys = [key_of("likelihood", engine.fingerprint, item.fingerprint) for item in items]
        missing = self._missing(keys)
        problems = []
        for index, result in engine.likelihood(
            [items[at].with_answer(items[at].reference) for at in missing]
        ):
            item = items[missing[index]]
            if math.isfinite(result.nats):
                self._keep(keys, missing[index], engine, result)
            else:
                found = f"{engine.name} gives its reference a likelihood that is not finite ({result.nats})"
                problems.append(Problem(found, item.origin, item.id, "the weights may hold NaN or infinity"))
        if problems:
            raise IncompleteError.collect(problems[:SHOWN_PROBLEMS])
        return [Likelihood(**self._record(key, Likelihood)) for key in keys]

    def _missing(self, keys: Sequence[str]) -> list[int]:
        missing = [at for at, key in enumerate(keys) if self.journal.get(key) is None]
        self.counter.step(len(keys) - len(missing))
        return missing

    def _keep(self, keys: Sequence[str], at: int, engine: Engine, result: Generation | Likelihood) -> None:
        labels = {"engine": engine.name, "item": self.suite.items[at].id}
        self.journal.add(keys[at], {**labels, **asdict(result)})
        self.counter.step()

    def _record(self, key: str, kind: type) -> dict[str, Any]:
        record = self.journal.get(key)
        assert record is not None, "an engine yields every result once"
        return {name: record[name] for name in kind.__dataclass_fields__}  # type: ignore[attr-defined]


def _answer(
    item: Item, generation: Generation, likelihood: Likelihood | None, metrics: Sequence[str]
) -> Answer:
    return Answer(
        text=generation.text,
        tokens=generation.tokens,
        stopped=generation.stopped,
        scores={name: METRICS[name].best(generation.text, item.references) for name in metrics},
        nats=likelihood.nats if likelihood else None,
        reference_tokens=likelihood.tokens if likelihood else None,
        bytes=len(item.reference.encode("utf-8")),
        checks=tuple(check.run(generation.text) for check in item.checks),
    )
