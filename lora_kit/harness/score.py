"""From items to tables: each model's metrics with intervals, each model against the first.

One resampling of the clusters serves all models and metrics, so every comparison is paired.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lora_kit.harness.measures import Measure, columns
from lora_kit.harness.results import Comparison, ItemResult
from lora_kit.harness.statistics.bootstrap import Floats, cluster_sums, resample_sums
from lora_kit.harness.statistics.verdict import Estimate, difference_of_ratios, estimate

Tables = Mapping[str, Mapping[str, Measure]]  # model -> metric -> measure


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
        places = [(model, metric) for model, table in tables.items() for metric in table]
        wide = np.hstack([columns(tables[model][metric], model, items) for model, metric in places])
        sums = cluster_sums(wide, clusters)
        draws = resample_sums(sums, samples=samples, seed=seed)
        self._tables = tables
        self._count = len(items)
        self._cells: dict[tuple[str, str], tuple[Floats, Floats]] = {
            place: (sums[:, 2 * at : 2 * at + 2], draws[:, 2 * at : 2 * at + 2])
            for at, place in enumerate(places)
        }

    def estimates(self, model: str) -> dict[str, Estimate]:
        """A model's metrics by name."""
        return {
            metric: estimate(*self._cells[model, metric], items=self._count) for metric in self._tables[model]
        }

    def comparisons(self) -> tuple[Comparison, ...]:
        """Each model but the first against the first, on the metrics that both have."""
        baseline, *others = self._tables
        return tuple(
            self._compare(model, baseline, metric)
            for model in others
            for metric in self._tables[model]
            if metric in self._tables[baseline]
        )

    def _compare(self, model: str, baseline: str, metric: str) -> Comparison:
        outcome = difference_of_ratios(
            self._cells[model, metric],
            self._cells[baseline, metric],
            higher_is_better=self._tables[model][metric].info.higher_is_better,
            items=self._count,
        )
        return Comparison(model, baseline, metric, outcome)
