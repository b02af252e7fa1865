"""One model against the baseline by metrics: the verdict in words first, then the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lora_kit.report.plots import ForestRow, forest_plot
from lora_kit.report.wording import decimals_for, finite, mapping, number, p_value, plain, signed, verdict_css

HEADLINE_METRICS = ("bits_per_byte", "nats_per_token")


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One line of the table.

    Args:
        title: The metric's name for people.
        direction: Which side is better, in words.
        baseline: Value of the baseline.
        model: Value of the compared model; with its interval if there is no baseline.
        difference: Model minus baseline.
        interval: Its interval.
        p: Its p value.
        verdict: better, worse, can't tell, higher or lower.
        css: Class of the verdict.
        hint: What the suite could have seen.
    """

    title: str
    direction: str
    baseline: str
    model: str
    difference: str = ""
    interval: str = ""
    p: str = ""
    verdict: str = ""
    css: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Contest:
    """One model against the baseline (empty if there is none); ``level`` is that of its intervals."""

    level: str
    model: str
    baseline: str
    verdict: str
    css: str
    sentence: str
    rows: tuple[MetricRow, ...]
    forest: Markup


def contests_of(results: Mapping[str, Any]) -> tuple[Contest, ...]:
    """Each model against its baseline, or alone; none in a folder where only judges were.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not what the harness writes.
    """
    models = [str(model["name"]) for model in results.get("models", ())]
    if not models:
        return ()
    compared = {str(entry["model"]): str(entry["baseline"]) for entry in results["comparisons"]}
    suite = results["suite"]
    reader = _Reader(results, f"On suite {plain(suite['name'])} ({suite['items']} prompts)")
    found = [reader.contest(model, baseline) for model, baseline in compared.items()]
    return tuple(found or [reader.alone(model) for model in models])


class _Reader:
    """Tables and sentences out of one results.json."""

    def __init__(self, results: Mapping[str, Any], opening: str) -> None:
        self.infos: Mapping[str, Any] = results["metrics"]
        self.values = {str(model["name"]): model["metrics"] for model in results["models"]}
        self.comparisons: Sequence[Mapping[str, Any]] = results["comparisons"]
        confidence = finite(mapping(results.get("settings")).get("confidence")) or 0.95
        self.level = f"{confidence:.0%}".replace("%", " %")
        self.opening = opening

    def contest(self, model: str, baseline: str) -> Contest:
        """Compare one model with its baseline."""
        entries = [entry for entry in self.comparisons if entry["model"] == model]
        by_metric = {str(entry["metric"]): entry for entry in entries}
        main = next(name for name in (*HEADLINE_METRICS, *by_metric) if name in by_metric)
        verdict = str(by_metric[main]["verdict"])
        return Contest(
            level=self.level,
            model=plain(model),
            baseline=plain(baseline),
            verdict=plain(verdict),
            css=verdict_css(verdict),
            sentence=self._sentence(by_metric[main], main, model, baseline),
            rows=tuple(self._row(entry, name, model, baseline) for name, entry in by_metric.items()),
            forest=forest_plot(
                [row for name, entry in by_metric.items() for row in self._forest(entry, name)]
            ),
        )

    def alone(self, model: str) -> Contest:
        """Describe a model that was evaluated without another one."""
        metrics = self.values[model]
        rows = tuple(self._alone_row(name, metrics[name]) for name in metrics)
        main = next((name for name in (*HEADLINE_METRICS, *metrics) if name in metrics), None)
        figure = f"{self._title(main)} is {self._estimate(metrics[main])}" if main else "nothing was measured"
        sentence = (
            f"{self.opening} {figure}; nothing to compare it with, since only {plain(model)} was evaluated."
        )
        return Contest(self.level, plain(model), "", "not compared", "unclear", sentence, rows, Markup(""))

    def _title(self, metric: str) -> str:
        return plain(mapping(self.infos.get(metric)).get("title") or metric)

    def _direction(self, metric: str) -> str:
        higher = mapping(self.infos.get(metric)).get("higher_is_better")
        return "" if higher is None else "higher is better" if higher else "lower is better"

    def _estimate(self, value: Mapping[str, Any]) -> str:
        digits = decimals_for(value["low"], value["high"])
        low, high = number(value["low"], digits), number(value["high"], digits)
        return f"{number(value['value'], digits)} ({self.level} interval {low} to {high})"

    def _alone_row(self, metric: str, value: Mapping[str, Any]) -> MetricRow:
        return MetricRow(self._title(metric), self._direction(metric), "", self._estimate(value))

    def _values(self, entry: Mapping[str, Any], model: str, baseline: str) -> tuple[str, str]:
        digits = decimals_for(entry["low"], entry["high"])
        found = (self.values[name].get(entry["metric"], {}) for name in (model, baseline))
        ours, theirs = (number(mapping(value).get("value"), digits) for value in found)
        return ours, theirs

    def _row(self, entry: Mapping[str, Any], metric: str, model: str, baseline: str) -> MetricRow:
        ours, theirs = self._values(entry, model, baseline)
        difference, interval = _figures(entry)
        verdict = str(entry["verdict"])
        visible = entry.get("smallest_visible")
        return MetricRow(
            title=self._title(metric),
            direction=self._direction(metric),
            baseline=theirs,
            model=ours,
            difference=difference,
            interval=interval,
            p=p_value(entry.get("p")),
            verdict=plain(verdict),
            css=verdict_css(verdict),
            hint=f"smallest difference that these prompts would show: {number(visible)}" if visible else "",
        )

    def _forest(self, entry: Mapping[str, Any], metric: str) -> list[ForestRow]:
        higher = mapping(self.infos.get(metric)).get("higher_is_better")
        ends = [finite(entry[name]) for name in ("low", "difference", "high")]
        known = [end for end in ends if end is not None]
        if higher is None or len(known) < len(ends):
            return []
        low, middle, high = known if higher else [-end for end in reversed(known)]
        css = verdict_css(entry["verdict"])
        difference, interval = _figures(entry)
        return [ForestRow(self._title(metric), low, middle, high, css, f"{difference} ({interval})")]

    def _sentence(self, entry: Mapping[str, Any], metric: str, model: str, baseline: str) -> str:
        ours, theirs = self._values(entry, model, baseline)
        who = "the tuned model" if model == "tuned" else plain(model)
        whom = "its base" if baseline == "base" else plain(baseline)
        difference, interval = _figures(entry)
        figures = (
            f"{self._title(metric)} {ours} instead of {theirs}, "
            f"difference {difference} ({self.level} interval {interval})"
        )
        verdict = str(entry["verdict"])
        if verdict != "can't tell":
            than = (
                f"{plain(verdict)} than"
                if verdict in ("better", "worse")
                else f"{plain(verdict)} in {self._title(metric)} than"
            )
            return f"{self.opening} {who} is {than} {whom}: {figures}."
        question = f"{self.opening} one can't tell whether {who} is better or worse than {whom}: {figures}."
        return f"{question} {_more_prompts(entry)}"


def _figures(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Difference and interval as text, with the same decimals."""
    digits = decimals_for(entry["low"], entry["high"])
    low, high = (signed(entry[name], digits) for name in ("low", "high"))
    return signed(entry["difference"], digits), f"{low} to {high}"


def _more_prompts(entry: Mapping[str, Any]) -> str:
    more = entry.get("more_items_needed")
    if more is None:
        return "The two do not differ on it at all, so more prompts would not decide it."
    if not more:
        return "It is at the edge of what these prompts can show; a few more would decide it."
    return (
        f"If the difference is what it looks like, about {more:,} more prompts of this kind would decide it."
    )
