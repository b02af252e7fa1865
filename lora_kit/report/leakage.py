"""What of a suite stands in the training rows, and what the scores are without it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_kit.report.wording import decimals_for, finite, mapping, number, p_value, plain, signed, verdict_css

LEVELS = {
    "exact": "word for word",
    "probable": "probably",
    "possible": "possibly",
}
TITLES = ("Prompts", "Model", "Metric", "Value", "Difference", "95 % interval", "p", "Verdict")
ROWS_NAMED = 3


@dataclass(frozen=True, slots=True)
class SubsetRow:
    """One metric of one model without the prompts that were seen; cells as in ``TITLES`` but the verdict."""

    cells: tuple[str, ...]
    verdict: str
    css: str


@dataclass(frozen=True, slots=True)
class LeakageView:
    """The section.

    Args:
        sentence: What was found.
        clean: Whether nothing was found.
        titles: Of the table.
        rows: Scores without the prompts that were seen.
        items: Prompt -> where it stands.
    """

    sentence: str
    clean: bool
    titles: tuple[str, ...]
    rows: tuple[SubsetRow, ...]
    items: Mapping[str, str]


def leakage_view(results: Mapping[str, Any]) -> LeakageView | None:
    """Read ``leakage`` of results.json; None where nobody looked.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not what an evaluation writes.
    """
    leakage = mapping(results.get("leakage"))
    if not leakage:
        return None
    if leakage.get("status") != "known":
        why = plain(leakage.get("reason"))
        sentence = f"Whether training rows hold prompts of this suite is not known: {why}."
        return LeakageView(sentence, clean=False, titles=TITLES, rows=(), items={})
    counts = mapping(leakage.get("counts"))
    found = {level: int(counts.get(level) or 0) for level in LEVELS}
    total = sum(found.values()) + int(counts.get("none") or 0)
    seen = ", ".join(f"{count} {LEVELS[level]}" for level, count in found.items() if count)
    sentence = (
        f"Of {total} prompts, training rows hold: {seen}."
        if seen
        else f"No prompt or reference of the {total} stands in the training rows."
    )
    return LeakageView(
        sentence=sentence,
        clean=not seen,
        titles=TITLES,
        rows=tuple(row for subset in leakage.get("subsets") or () for row in _rows(mapping(subset), results)),
        items={str(item["id"]): _where(mapping(item)) for item in leakage.get("items") or ()},
    )


def _where(item: Mapping[str, Any]) -> str:
    parts = []
    for found in map(mapping, item.get("found") or ()):
        rows = [plain(row) for row in found.get("rows") or ()]
        more = f" and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else ""
        level = LEVELS.get(str(found.get("level")), plain(found.get("level")))
        parts.append(f"{plain(found.get('part'))} {level}: {', '.join(rows[:ROWS_NAMED])}{more}")
    return "; ".join(parts) or plain(item.get("level"))


def _rows(subset: Mapping[str, Any], results: Mapping[str, Any]) -> list[SubsetRow]:
    infos = mapping(results.get("metrics"))
    title = f"{plain(subset.get('title'))} ({number(subset.get('items'))})"
    compared = {(str(c["model"]), str(c["metric"])): c for c in map(mapping, subset.get("comparisons") or ())}
    rows = []
    for model in map(mapping, subset.get("models") or ()):
        for metric, value in mapping(model.get("metrics")).items():
            info = mapping(infos.get(metric))
            told = (title, plain(model["name"]), plain(info.get("title") or metric))
            rows.append(_row(told, mapping(value), mapping(compared.get((str(model["name"]), metric)))))
    return rows


def _row(told: tuple[str, ...], value: Mapping[str, Any], compared: Mapping[str, Any]) -> SubsetRow:
    known = number(value.get("value"), decimals_for(value.get("low"), value.get("high")))
    if finite(compared.get("difference")) is None:
        return SubsetRow((*told, known, "", "", ""), "", "")
    digits = decimals_for(compared.get("low"), compared.get("high"))
    interval = f"{signed(compared.get('low'), digits)} to {signed(compared.get('high'), digits)}"
    verdict = plain(compared.get("verdict"))
    cells = (*told, known, signed(compared["difference"], digits), interval, p_value(compared.get("p")))
    return SubsetRow(cells, verdict, verdict_css(verdict))


def lm_eval_rows(results: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Results of lm-eval: task, model, metric, value with its standard error, items."""
    tasks = mapping(results.get("lm_eval")).get("tasks") or ()
    return tuple(
        (
            plain(task.get("task")),
            plain(task.get("model")),
            plain(task.get("metric")),
            f"{number(task.get('value'))} ± {number(task.get('stderr'))}",
            number(task.get("n")),
        )
        for task in map(mapping, tasks)
    )
