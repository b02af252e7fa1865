"""Checkpoints x suite -> scores, intervals and verdicts; knows nothing of training.

Every model meets the same prompts through its own encoder, answers greedily, and is
measured on the same references; each is compared with the first, pair by pair. A
likelihood that is not finite is no score: it ends the evaluation as incomplete (exit 7),
naming model and items, and is asked again next time; all answers before it are kept.
"""

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lora_kit import __version__
from lora_kit.catalogue import METRICS
from lora_kit.errors import DataError, IncompleteError, Problem
from lora_kit.harness.engine import Engine, Generation, Likelihood, Progress
from lora_kit.harness.journal import Journal, key_of, open_journal
from lora_kit.harness.measures import Measure, columns, measures_for, script_notes
from lora_kit.harness.results import Answer, Comparison, ItemResult, ModelResult, Results
from lora_kit.harness.statistics.bootstrap import CONFIDENCE, cluster_sums, resample_sums
from lora_kit.harness.statistics.verdict import MIN_CLUSTERS, difference_of_ratios, estimate
from lora_kit.harness.suite import Item, Suite
from lora_kit.recipe.schema import EvaluateSpec

LIBRARIES = ("torch", "transformers", "peft", "numpy", "rouge-score", "sacrebleu")
SHOWN_PROBLEMS = 20


def evaluate(
    engines: Sequence[Engine],
    suite: Suite,
    spec: EvaluateSpec,
    *,
    journal: Path | None = None,
    on_progress: Progress | None = None,
) -> Results:
    """Score models on a suite and compare each with the first.

    Args:
        engines: The baseline, then the others; names differ.
        suite: Prompts, references, metrics.
        spec: Limits, batch size, resamples, seed.
        journal: ``answers.jsonl``; what it holds already is not asked again.
        on_progress: Told (done, total) after each answer and each likelihood.

    Raises:
        DataError: The suite is empty, a prompt does not fit a model, or two engines have one name.
        IncompleteError: A likelihood is not finite.
        MachineError: The journal can't be written.
    """
    began = time.monotonic()
    _check(engines, suite)
    with open_journal(journal) as kept:
        work = _Work(suite, spec, kept, _Counter(_passes(engines) * len(suite.items), on_progress))
        answers = {engine.name: work.answers(engine) for engine in engines}
    items = tuple(
        ItemResult(
            item.id, item.category, item.prompt, item.reference, {n: a[at] for n, a in answers.items()}
        )
        for at, item in enumerate(suite.items)
    )
    tables = {
        engine.name: measures_for(suite.metrics, likelihood=engine.measures_likelihood) for engine in engines
    }
    models, comparisons = _score(engines, suite, spec, items, tables)
    return Results(
        suite={
            "name": suite.name,
            "description": suite.description,
            "fingerprint": suite.fingerprint,
            "items": len(suite.items),
        },
        metrics={name: measure.info for table in tables.values() for name, measure in table.items()},
        models=models,
        comparisons=comparisons,
        items=items,
        notes=(*_notes(items, [engine.name for engine in engines]), *_suite_notes(suite)),
        settings={**spec.model_dump(exclude={"suites"}), "confidence": CONFIDENCE, "decoding": "greedy"},
        versions=_versions(),
        seconds=time.monotonic() - began,
    )


@dataclass
class _Counter:
    total: int
    listener: Progress | None
    done: int = 0

    def step(self, count: int = 1) -> None:
        self.done += count
        if self.listener is not None and count:
            self.listener(self.done, self.total)


@dataclass(frozen=True)
class _Work:
    """What one evaluation asks its engines, minus what the journal knows."""

    suite: Suite
    spec: EvaluateSpec
    journal: Journal
    counter: _Counter

    def answers(self, engine: Engine) -> list[Answer]:
        generations = self._generations(engine)
        likelihoods = self._likelihoods(engine) if engine.measures_likelihood else [None] * len(generations)
        rows = zip(self.suite.items, generations, likelihoods, strict=True)
        return [_answer(item, generation, likelihood, self.suite) for item, generation, likelihood in rows]

    def _generations(self, engine: Engine) -> list[Generation]:
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


def _passes(engines: Sequence[Engine]) -> int:
    return sum(2 if engine.measures_likelihood else 1 for engine in engines)


def _check(engines: Sequence[Engine], suite: Suite) -> None:
    names = [engine.name for engine in engines]
    if not names or len(set(names)) < len(names):
        raise DataError(f"models need names that differ, got {', '.join(names) or 'none'}")
    if not suite.items:
        raise DataError(f"the suite '{suite.name}' has no prompts")


def _answer(item: Item, generation: Generation, likelihood: Likelihood | None, suite: Suite) -> Answer:
    return Answer(
        text=generation.text,
        tokens=generation.tokens,
        stopped=generation.stopped,
        scores={name: METRICS[name].score(generation.text, item.reference) for name in suite.metrics},
        nats=likelihood.nats if likelihood else None,
        reference_tokens=likelihood.tokens if likelihood else None,
        bytes=len(item.reference.encode("utf-8")),
    )


def _score(
    engines: Sequence[Engine],
    suite: Suite,
    spec: EvaluateSpec,
    items: Sequence[ItemResult],
    tables: Mapping[str, Mapping[str, Measure]],
) -> tuple[tuple[ModelResult, ...], tuple[Comparison, ...]]:
    """One resampling of the items for all models and metrics."""
    places = [(model, name) for model, table in tables.items() for name in table]
    wide = np.hstack([columns(tables[model][name], model, items) for model, name in places])
    sums = cluster_sums(wide, [item.cluster for item in suite.items])
    draws = resample_sums(sums, samples=spec.bootstrap_samples, seed=spec.seed)
    cells = {p: (sums[:, 2 * k : 2 * k + 2], draws[:, 2 * k : 2 * k + 2]) for k, p in enumerate(places)}
    count = len(items)
    models = tuple(
        ModelResult(
            engine.name,
            engine.fingerprint,
            {name: estimate(*cells[engine.name, name], items=count) for name in tables[engine.name]},
        )
        for engine in engines
    )
    baseline = engines[0].name
    comparisons = tuple(
        Comparison(
            engine.name,
            baseline,
            name,
            difference_of_ratios(
                cells[engine.name, name],
                cells[baseline, name],
                higher_is_better=measure.info.higher_is_better,
                items=count,
            ),
        )
        for engine in engines[1:]
        for name, measure in tables[engine.name].items()
        if name in tables[baseline]
    )
    return models, comparisons


def _notes(items: Sequence[ItemResult], names: Sequence[str]) -> list[str]:
    """Models that do nothing, and models that say nothing."""
    notes = []
    for name in names[1:]:
        pairs = [(item.answers[names[0]], item.answers[name]) for item in items]
        if all(a.text == b.text and a.nats == b.nats for a, b in pairs):
            notes.append(f"{name} equals {names[0]} in every answer and likelihood: its effect is nil")
    for name in names:
        texts = [item.answers[name].text.strip() for item in items]
        empty = sum(not text for text in texts)
        if empty:
            notes.append(f"{name} gave {empty} empty answers of {len(texts)}")
        elif len(texts) > 1 and len(set(texts)) == 1:
            notes.append(f"{name} gave the same answer to all {len(texts)} prompts")
    return notes


def _suite_notes(suite: Suite) -> list[str]:
    notes = script_notes(suite.metrics, [item.reference for item in suite.items])
    clusters = len({item.cluster for item in suite.items})
    if clusters < MIN_CLUSTERS:
        notes.append(
            f"{clusters} independent prompts are too few for any verdict; {MIN_CLUSTERS} are the least"
        )
    return notes


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in LIBRARIES}
    return {"lora-kit": __version__, "python": platform.python_version(), **libraries}
