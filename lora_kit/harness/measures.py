"""From answers to columns: every metric as a numerator and a denominator per item.

Sums, not means: nats per token weighs each token alike, not each item, and adding
columns over items or clusters is exact. Text metrics are means over items, so their
denominator is 1. An item of weight w counts as w items would, in both sums.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lora_kit.catalogue import METRICS
from lora_kit.harness.metric import Metric
from lora_kit.harness.results import Answer, ItemResult, MetricInfo
from lora_kit.harness.statistics.bootstrap import Floats
from lora_kit.harness.suite import Suite

Cell = Callable[[Answer, str], tuple[float, float]]  # (answer, reference) -> numerator, denominator
LOST_SCRIPT = 0.9  # a metric that sees less of a reference than this is not to be trusted on it


@dataclass(frozen=True, slots=True)
class Measure:
    """A number about a model over a suite, as a ratio of two sums.

    Args:
        info: How to read it.
        cell: Both sums of one item.
        covers: Items that it is about; the others are left out of it.
    """

    info: MetricInfo
    cell: Cell
    covers: Callable[[ItemResult], bool] = lambda _: True


def _nats(answer: Answer) -> float:
    return math.nan if answer.nats is None else answer.nats


LIKELIHOOD: Mapping[str, Measure] = {
    "bits_per_byte": Measure(
        MetricInfo("bits per byte of the reference", higher_is_better=False),
        lambda answer, _: (_nats(answer) / math.log(2), float(answer.bytes)),
    ),
    "nats_per_token": Measure(
        MetricInfo("nats per token of the reference", higher_is_better=False),
        lambda answer, _: (_nats(answer), float(answer.reference_tokens or 0)),
    ),
}
SHAPE: Mapping[str, Measure] = {
    "length_ratio": Measure(
        MetricInfo("length in characters over the reference's", higher_is_better=None),
        lambda answer, reference: (float(len(answer.text)), float(len(reference))),
    ),
    "stop_rate": Measure(
        MetricInfo("answers that end by themselves", higher_is_better=True),
        lambda answer, _: (float(answer.stopped), 1.0),
    ),
    "empty_rate": Measure(
        MetricInfo("empty answers", higher_is_better=False),
        lambda answer, _: (float(not answer.text.strip()), 1.0),
    ),
}


CHECKS: Mapping[str, Measure] = {
    "checks": Measure(
        MetricInfo("share of rules that are kept", higher_is_better=True),
        lambda answer, _: (float(sum(check.passed for check in answer.checks)), float(len(answer.checks))),
        covers=lambda item: any(answer.checks for answer in item.answers.values()),
    ),
}


def measures_for(suite: Suite, *, likelihood: bool) -> dict[str, Measure]:
    """The measures of a model, in the order of tables.

    Args:
        suite: Whose text metrics and rules are used.
        likelihood: Whether the engine measures it.
    """
    texts = {name: _text_measure(METRICS[name]) for name in metrics_of(suite)}
    rules = CHECKS if any(item.checks for item in suite.items) else {}
    return {**(LIKELIHOOD if likelihood else {}), **rules, **texts, **SHAPE}


def metrics_of(suite: Suite) -> tuple[str, ...]:
    """The suite's text metrics, and chrF where one of them can't read the references."""
    if "chrf" in suite.metrics or not _lost(suite.metrics, [item.reference for item in suite.items]):
        return suite.metrics
    return (*suite.metrics, "chrf")


def _text_measure(metric: Metric) -> Measure:
    info = MetricInfo(metric.title, metric.higher_is_better, metric.signature())
    return Measure(info, lambda answer, _: (answer.scores[metric.name], 1.0))


def columns(measure: Measure, model: str, items: Sequence[ItemResult]) -> Floats:
    """Numerator and denominator of each item, times its weight, float64 ``(n, 2)``."""
    cells = [measure.cell(item.answers[model], item.reference) for item in items]
    weights = np.array([[item.weight] for item in items], dtype=np.float64)
    return np.asarray(np.array(cells, dtype=np.float64) * weights)


def script_notes(metrics: Sequence[str], references: Sequence[str]) -> list[str]:
    """Say which metrics can't read the references."""
    notes = []
    for name, lost in _lost(metrics, references).items():
        found = f"{METRICS[name].title} deletes the script of {lost} of {len(references)} references"
        notes.append(f"{found}: its scores there say nothing; read chrF instead")
    return notes


def _lost(metrics: Sequence[str], references: Sequence[str]) -> dict[str, int]:
    """Metric to the number of references that it can't read, where there are any."""
    counts = {
        name: sum(METRICS[name].coverage(reference) < LOST_SCRIPT for reference in references)
        for name in metrics
    }
    return {name: count for name, count in counts.items() if count}
