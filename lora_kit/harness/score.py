"""From items to tables: each model's metrics with intervals, each model against the first.

One resampling of the clusters serves all models and metrics of the same items, so every comparison is paired.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lora_kit.harness.measures import Measure, columns
from lora_kit.harness.results import Comparison, ItemResult
from lora_kit.harness.statistics.bootstrap import Floats, cluster_sums, resample_sums
from lora_kit.harness.statistics.verdict import Estimate, difference_of_ratios, estimate

Tables = Mapping[str, Mapping[str, Measure]]  # model -> metric -> measure
Place = tuple[str, str]  # model, metric


class Scores:
    """Sums and resampled sums of every metric of every model.

    Args:
        tables: What each model is measured by; the first is the baseline.
        items: With the answers of all models.
        clusters: Cluster of each item.
        samples: Resamples.
        seed: Of the resampling.
    """

    def __init__(
        self, tables: Tables, items: Sequence[ItemResult], clusters: Sequence[str], *, samples: int, seed: int
    ) -> None:
        self._tables = tables
        self._cells: dict[Place, tuple[Floats, Floats]] = {}
        self._counts: dict[str, int] = {}
        for covered, places in _by_coverage(tables, items).items():
            some = [items[at] for at in covered]
            wide = np.hstack([columns(tables[model][metric], model, some) for model, metric in places])
            sums = cluster_sums(wide, [clusters[at] for at in covered])
            draws = resample_sums(sums, samples=samples, seed=seed)
            for at, place in enumerate(places):
                self._cells[place] = (sums[:, 2 * at : 2 * at + 2], draws[:, 2 * at : 2 * at + 2])
                self._counts[place[1]] = len(some)

    @property
    def models(self) -> tuple[str, ...]:
        """Their names, the baseline first."""
        return tuple(self._tables)

    def estimates(self, model: str) -> dict[str, Estimate]:
        """A model's metrics by name."""
        return {
            metric: estimate(*self._cells[model, metric], items=self._counts[metric])
            for metric in self._tables[model]
            if metric in self._counts
        }

    def comparisons(self) -> tuple[Comparison, ...]:
        """Each model but the first against the first, on the metrics that both have."""
        baseline, *others = self._tables
        return tuple(
            self._compare(model, baseline, metric)
            for model in others
            for metric in self._tables[model]
            if metric in self._tables[baseline] and metric in self._counts
        )

    def _compare(self, model: str, baseline: str, metric: str) -> Comparison:
        outcome = difference_of_ratios(
            self._cells[model, metric],
            self._cells[baseline, metric],
            higher_is_better=self._tables[model][metric].info.higher_is_better,
            items=self._counts[metric],
        )
        return Comparison(model, baseline, metric, outcome)


def _by_coverage(tables: Tables, items: Sequence[ItemResult]) -> dict[tuple[int, ...], list[Place]]:
    """Group what is measured by the items that it is about; what is about none is left out."""
    groups: dict[tuple[int, ...], list[Place]] = {}
    for model, table in tables.items():
        for metric, measure in table.items():
            covered = tuple(at for at, item in enumerate(items) if measure.covers(item))
            if covered:
                groups.setdefault(covered, []).append((model, metric))
    return groups
