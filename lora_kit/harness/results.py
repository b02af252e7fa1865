"""What an evaluation found, as values and as the JSON that reports are made from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lora_kit.harness.statistics.verdict import Difference, Estimate
from lora_kit.harness.suite_checks import Checked

RESULTS_VERSION = 1


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """How to read a metric.

    Args:
        title: Name for people.
        higher_is_better: None for a metric without a better side.
        signature: Library, version and settings, where a library computes it.
    """

    title: str
    higher_is_better: bool | None
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's result on one item.

    Args:
        text: What it said, without the end mark.
        tokens: Generated tokens.
        stopped: Whether it ended by itself.
        scores: Text metric to score.
        nats: Negative log-likelihood of the reference and its end mark; None if the engine can't measure it.
        reference_tokens: Tokens of the reference, end mark included; None likewise.
        bytes: UTF-8 length of the reference.
        checks: What each rule of the item says of the text.
    """

    text: str
    tokens: int
    stopped: bool
    scores: Mapping[str, float]
    nats: float | None
    reference_tokens: int | None
    bytes: int
    checks: tuple[Checked, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One item with every model's answer, by model name, and how much it counts in means."""

    id: str
    category: str
    prompt: str
    reference: str
    answers: Mapping[str, Answer]
    cluster: str = ""
    weight: float = 1.0
    more_references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model's metrics over the suite."""

    name: str
    fingerprint: str
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model against the baseline on one metric."""

    model: str
    baseline: str
    metric: str
    outcome: Difference

    def to_json(self) -> dict[str, Any]:
        """Flat, as in results.json."""
        return {"model": self.model, "baseline": self.baseline, "metric": self.metric, **asdict(self.outcome)}


@dataclass(frozen=True, slots=True)
class Results:
    """All of it.

    Args:
        suite: name, description, fingerprint, items (their number).
        metrics: How to read each metric.
        models: Baseline first.
        comparisons: Each other model against the baseline.
        items: In the order of the suite.
        notes: What a reader has to know before believing a number.
        settings: What the evaluation was asked to do.
        versions: Of the libraries that computed it.
        seconds: Wall time, resumed parts not counted.
        leakage: What of the suite the training rows hold, and the scores without it; None if no one asked.
    """

    suite: Mapping[str, Any]
    metrics: Mapping[str, MetricInfo]
    models: tuple[ModelResult, ...]
    comparisons: tuple[Comparison, ...]
    items: tuple[ItemResult, ...]
    notes: tuple[str, ...]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float
    results_version: int = field(default=RESULTS_VERSION)
    leakage: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, finite numbers only."""
        return {
            "results_version": self.results_version,
            "suite": dict(self.suite),
            "metrics": {name: asdict(info) for name, info in self.metrics.items()},
            "models": [asdict(model) for model in self.models],
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "items": [asdict(item) for item in self.items],
            "notes": list(self.notes),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "seconds": self.seconds,
            **({} if self.leakage is None else {"leakage": dict(self.leakage)}),
        }
