"""Checkpoints x suite -> scores, intervals and verdicts; knows nothing of training.

Every model meets the same prompts through its own encoder, answers greedily, and is
measured on the same references; each is compared with the first, pair by pair.
"""

import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from lora_kit import __version__
from lora_kit.errors import DataError
from lora_kit.harness.ask import Asking, Counter
from lora_kit.harness.engine import Engine, Progress
from lora_kit.harness.journal import open_journal
from lora_kit.harness.leakage import Overlap, leakage_notes, leakage_report
from lora_kit.harness.measures import measures_for, script_notes
from lora_kit.harness.results import ItemResult, ModelResult, Results
from lora_kit.harness.score import Scores
from lora_kit.harness.statistics.bootstrap import CONFIDENCE
from lora_kit.harness.statistics.verdict import MIN_CLUSTERS
from lora_kit.harness.suite import Suite
from lora_kit.recipe.schema import EvaluateSpec

ANSWERS = "answers.jsonl"
LIBRARIES = ("torch", "transformers", "peft", "numpy", "rouge-score", "sacrebleu")


def evaluate(
    engines: Sequence[Engine],
    suite: Suite,
    spec: EvaluateSpec,
    *,
    folder: Path | None = None,
    on_progress: Progress | None = None,
    overlap: Overlap | None = None,
) -> Results:
    """Score models on a suite and compare each with the first.

    Args:
        engines: The baseline, then the others; names differ.
        suite: Prompts, references, metrics.
        spec: Limits, batch size, resamples, seed.
        folder: Where ``answers.jsonl`` is; what it holds already is not asked again. None keeps nothing.
        on_progress: Told (done, total) after each answer and each likelihood.
        overlap: What of the suite the training rows hold; None if no model here was trained.

    Raises:
        DataError: The suite is empty, a prompt does not fit a model, or two engines have one name.
        IncompleteError: A likelihood is not finite.
        MachineError: The journal can't be written.
    """
    began = time.monotonic()
    _check(engines, suite)
    items = _ask(engines, suite, spec, folder and folder / ANSWERS, on_progress)
    tables = {engine.name: measures_for(suite, likelihood=engine.measures_likelihood) for engine in engines}
    clusters = [item.cluster for item in suite.items]

    def score(some: Sequence[ItemResult]) -> Scores:
        groups = [item.cluster for item in some]
        return Scores(tables, some, groups, samples=spec.bootstrap_samples, seed=spec.seed)

    scores = score(items)
    about = {"name": suite.name, "description": suite.description, "fingerprint": suite.fingerprint}
    return Results(
        suite={**about, "items": len(items), "clusters": len(set(clusters))},
        metrics={name: measure.info for table in tables.values() for name, measure in table.items()},
        models=tuple(
            ModelResult(engine.name, engine.fingerprint, scores.estimates(engine.name)) for engine in engines
        ),
        comparisons=scores.comparisons(),
        items=items,
        notes=(
            *_notes(items, [engine.name for engine in engines]),
            *_suite_notes(suite),
            *([] if overlap is None else leakage_notes(overlap)),
        ),
        settings={**spec.model_dump(exclude={"suites"}), "confidence": CONFIDENCE, "decoding": "greedy"},
        versions=_versions(),
        seconds=time.monotonic() - began,
        leakage=None if overlap is None else leakage_report(overlap, items, score),
    )


def _check(engines: Sequence[Engine], suite: Suite) -> None:
    names = [engine.name for engine in engines]
    if not names or len(set(names)) < len(names):
        raise DataError(f"models need names that differ, got {', '.join(names) or 'none'}")
    if not suite.items:
        raise DataError(f"the suite '{suite.name}' has no prompts")


def _ask(
    engines: Sequence[Engine],
    suite: Suite,
    spec: EvaluateSpec,
    journal: Path | None,
    on_progress: Progress | None,
) -> tuple[ItemResult, ...]:
    total = sum(2 if engine.measures_likelihood else 1 for engine in engines) * len(suite.items)
    with open_journal(journal) as kept:
        asking = Asking(suite, spec, kept, Counter(total, on_progress))
        answers = {engine.name: asking.answers(engine) for engine in engines}
    return tuple(
        ItemResult(
            item.id,
            item.category,
            item.prompt,
            item.reference,
            {n: a[at] for n, a in answers.items()},
            item.cluster,
            item.weight,
            item.more_references,
        )
        for at, item in enumerate(suite.items)
    )


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
