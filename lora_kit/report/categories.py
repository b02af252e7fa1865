"""Where a model gained and where it lost: each category of the suite against each metric and judge."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lora_kit.report.ballots import by_item, share_of
from lora_kit.report.judge_plots import MapCell, category_map
from lora_kit.report.judging import JudgeView
from lora_kit.report.wording import MISSING, finite, mapping, number, plain, signed

BITS = "bits_per_byte"
MOST_COLUMNS = 12
Items = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the map.

    Args:
        title: Of the column.
        value: Items of a category -> (text, figure that is good above 0); None where there is no number.
    """

    title: str
    value: Callable[[Items], tuple[str, float | None] | None]


@dataclass(frozen=True, slots=True)
class CategoryView:
    """The map as a picture and as a table."""

    picture: Markup
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def category_view(results: Mapping[str, Any], judges: Sequence[JudgeView]) -> CategoryView | None:
    """Map of categories; None for a suite of one category or without numbers."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for item in results.get("items", ()):
        groups.setdefault(plain(item.get("category") or "none"), []).append(item)
    columns = [*_metric_columns(results), *(_judge_column(view) for view in judges)][:MOST_COLUMNS]
    if len(groups) < 2 or not columns:
        return None
    cells = [[column.value(items) for items in groups.values()] for column in columns]
    rows = []
    for at, (name, items) in enumerate(groups.items()):
        row = [_cell(found, at, f"{name}: {c.title}") for found, c in zip(cells, columns, strict=True)]
        rows.append((f"{name} ({len(items)})", row))
    titles = [column.title for column in columns]
    return CategoryView(
        picture=category_map(titles, rows),
        titles=tuple(titles),
        rows=tuple((name, *(cell.text for cell in row)) for name, row in rows),
    )


def _cell(column: Sequence[tuple[str, float | None] | None], at: int, hint: str) -> MapCell:
    largest = max((abs(found[1]) for found in column if found and found[1] is not None), default=0.0)
    found = column[at]
    if found is None:
        return MapCell(MISSING, None, f"{hint}: nothing measured")
    text, good = found
    colour = good / largest if good is not None and largest > 0 else None
    return MapCell(text, colour, f"{hint} {text}")


def _metric_columns(results: Mapping[str, Any]) -> list[Column]:
    models = [str(model["name"]) for model in results.get("models", ())]
    if not models:
        return []
    baseline, others = models[0], models[1:]
    names = [name for name in mapping(results.get("metrics")) if name == BITS or _is_scored(results, name)]
    return [
        _metric_column(results, name, model, baseline if others else "")
        for model in (others or [baseline])
        for name in names
    ]


def _is_scored(results: Mapping[str, Any], metric: str) -> bool:
    answers = (a for item in results.get("items", ())[:1] for a in mapping(item.get("answers")).values())
    return any(metric in mapping(mapping(answer).get("scores")) for answer in answers)


def _metric_column(results: Mapping[str, Any], metric: str, model: str, baseline: str) -> Column:
    info = mapping(mapping(results["metrics"]).get(metric))
    higher = info.get("higher_is_better") is not False
    title = plain(info.get("title") or metric)

    def value(items: Items) -> tuple[str, float | None] | None:
        ours = mean_of(items, model, metric)
        if ours is None or not baseline:
            return None if ours is None else (number(ours), None)
        theirs = mean_of(items, baseline, metric)
        if theirs is None:
            return None
        change = ours - theirs
        return signed(change, 3 if abs(change) < 1 else 1), change if higher else -change

    return Column(f"{plain(model)}: {title}", value)


def mean_of(items: Items, model: str, metric: str) -> float | None:
    """A model's metric over some items; bits per byte as a ratio of sums, scores as a mean."""
    answers = [mapping(mapping(item.get("answers")).get(model)) for item in items]
    if metric == BITS:
        pairs = [(finite(answer.get("nats")), finite(answer.get("bytes"))) for answer in answers]
        known = [(nats, length) for nats, length in pairs if nats is not None and length]
        total = sum(length for _, length in known)
        return sum(nats for nats, _ in known) / math.log(2) / total if total else None
    scores = [s for a in answers if (s := finite(mapping(a.get("scores")).get(metric))) is not None]
    return sum(scores) / len(scores) if scores else None


def _judge_column(view: JudgeView) -> Column:
    found = {name: share_of(ballots, view.poll) for name, ballots in by_item(view.poll).items()}

    def value(items: Items) -> tuple[str, float | None] | None:
        shares = [share for item in items if (share := found.get(str(item["id"]))) is not None]
        if not shares:
            return None
        percent = 100.0 * sum(shares) / len(shares)
        return f"{percent:.0f} %", percent - 50.0

    return Column(f"{plain(view.poll.system)}: wins by {view.judge}", value)
