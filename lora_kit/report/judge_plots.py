"""The pictures of an evaluation by judges: outcomes, length against winning, the map of categories, ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lora_kit.report import svg
from lora_kit.report.svg import Point, Scale
from lora_kit.report.wording import excerpt, number

WIDTH = 760
_LABEL = 250  # pixels for the names at the left
OUTCOME_CSS = ("good", "tie", "bad", "none")
OUTCOME_WORDS = ("won", "tied", "lost", "not judged")


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """One bar: counts of won, tied, lost and not judged."""

    title: str
    counts: tuple[int, int, int, int]


def outcome_bars(rows: Sequence[OutcomeRow]) -> Markup:
    """Won, tied and lost as shares of one line each."""
    pitch, top = 32, 6
    parts: list[Markup] = []
    for index, row in enumerate(rows):
        y, total = top + pitch * index, sum(row.counts) or 1
        parts.append(svg.text((0, y + 17), excerpt(row.title, 38)))
        x = float(_LABEL)
        for count, css, word in zip(row.counts, OUTCOME_CSS, OUTCOME_WORDS, strict=True):
            wide = (WIDTH - _LABEL) * count / total
            hint = f"{row.title}: {count} of {total} {word}"
            if count:
                parts.append(svg.box((round(x, 2), y), wide, 24, f"outcome {css}", hint))
            if wide > 26:
                at = (round(x + wide / 2, 2), y + 17)
                parts.append(svg.text(at, f"{count}", anchor="middle", css=f"label on-{css}"))
            x += wide
    return svg.document(WIDTH, top + pitch * len(rows) + 2, "Won, tied and lost", parts)


@dataclass(frozen=True, slots=True)
class LengthPoint:
    """One prompt: how much longer the system's answer is, and how far the judge was for it (0..1)."""

    item: str
    ratio: float
    share: float


def length_plot(points: Sequence[LengthPoint]) -> Markup:
    """Ratio of lengths (logarithmic) against the share of the verdict, with the mean of each fifth."""
    left, right, top, bottom, height = 60, WIDTH - 16, 16, 220, 262
    powers = sorted(abs(math.log2(point.ratio)) for point in points) or [1.0]
    usual = powers[int(0.95 * (len(powers) - 1))]  # the few beyond it stand at the edge
    reach = min(max(math.ceil(usual), 1), 8)
    x, y = Scale(-reach, reach, left, right), Scale(0.0, 1.0, bottom, top)
    placed = [(min(max(math.log2(point.ratio), -reach), float(reach)), point) for point in points]
    parts = [svg.text((left - 8, y(s) + 4), text, anchor="end") for s, text in ((0, "lost"), (1, "won"))]
    parts += [svg.line((left, y(s)), (right, y(s)), "grid") for s in (0.0, 0.5, 1.0)]
    parts.append(svg.line((x(0), top - 8), (x(0), bottom + 8), "zero"))
    for tick in range(-reach, reach + 1, max(1, reach // 4)):
        parts.append(svg.text((x(tick), bottom + 24), _times(tick), anchor="middle"))
    parts.append(svg.text((right, height - 4), "length of the answer", anchor="end", css="label muted"))
    for index, (power, point) in enumerate(placed):
        aside = (index * 7 % 11 - 5) * 1.6  # equal verdicts would hide one another
        hint = f"{point.item}: {number(point.ratio)} times as long, verdict {number(point.share)}"
        parts.append(svg.dot((x(power), round(y(point.share) + aside, 2)), "point length", hint, radius=3.5))
    parts.append(
        svg.path([(x(p), y(s)) for p, s in fifths([(p, pt.share) for p, pt in placed])], "curve mean")
    )
    return svg.document(WIDTH, height, "Length of the answer against winning", parts)


def fifths(points: Sequence[Point]) -> list[Point]:
    """Means of five equal parts of the points in the order of x; fewer than ten points make none."""
    if len(points) < 10:
        return []
    ordered = sorted(points)
    parts = [ordered[len(ordered) * at // 5 : len(ordered) * (at + 1) // 5] for at in range(5)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _times(power: int) -> str:
    return f"{2**power}x" if power >= 0 else f"1/{2**-power}"


@dataclass(frozen=True, slots=True)
class MapCell:
    """A cell of the category map: its text, and how good it is from -1 to 1 (None for no colour)."""

    text: str
    good: float | None
    hint: str


def category_map(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[MapCell]]]) -> Markup:
    """A heat map with the numbers in it; titles stand upright when there are many columns."""
    slanted, left, pitch = len(titles) > 4, 190, 30
    top = 118 if slanted else 34
    wide = (WIDTH - left - (100 if slanted else 0)) / max(len(titles), 1)
    parts: list[Markup] = []
    for at, title in enumerate(titles):
        x = round(left + wide * (at + 0.5), 2)
        place = (x - 4, top - 10)
        short = excerpt(title, 24 if slanted else max(8, int(wide / 7)))
        parts.append(
            svg.slanted(place, short) if slanted else svg.text((x, top - 10), short, anchor="middle")
        )
    for index, (name, cells) in enumerate(rows):
        y = top + pitch * index
        parts.append(svg.text((0, y + 19), excerpt(name, 27)))
        for at, cell in enumerate(cells):
            corner = (round(left + wide * at + 1, 2), y + 1)
            css = "cell none" if not cell.good else f"cell {'good' if cell.good > 0 else 'bad'}"
            strength = 0.12 + 0.6 * min(abs(cell.good or 0.0), 1.0)
            parts.append(svg.box(corner, wide - 2, pitch - 2, css, cell.hint, opacity=strength))
            middle = (round(left + wide * (at + 0.5), 2), y + 19)
            parts.append(svg.text(middle, cell.text, anchor="middle"))
    return svg.document(WIDTH, top + pitch * len(rows) + 4, "Categories and metrics", parts)


@dataclass(frozen=True, slots=True)
class RankRow:
    """One system's rating with its interval."""

    name: str
    low: float
    middle: float
    high: float
    figures: str


def rank_plot(rows: Sequence[RankRow], unit: str) -> Markup:
    """Ratings with their intervals on one scale, best first."""
    pitch, top, right = 32, 8, 600
    low, high = svg.padded([end for row in rows for end in (row.low, row.high)])
    x, floor = Scale(low, high, _LABEL, right), top + pitch * len(rows)
    parts = []
    for tick in svg.ticks(low, high, 6):
        parts.append(svg.line((x(tick), top), (x(tick), floor), "grid"))
        parts.append(svg.text((x(tick), floor + 18), number(tick), anchor="middle"))
    parts.append(svg.text((right, floor + 36), unit, anchor="end", css="label muted"))
    for index, row in enumerate(rows):
        y = top + pitch * (index + 0.5)
        parts += [
            svg.text((0, y + 4), excerpt(row.name, 36)),
            svg.line((x(row.low), y), (x(row.high), y), "interval rank"),
            svg.line((x(row.low), y - 5), (x(row.low), y + 5), "interval rank"),
            svg.line((x(row.high), y - 5), (x(row.high), y + 5), "interval rank"),
            svg.dot((x(row.middle), y), "point rank", f"{row.name}: {row.figures}", radius=5),
            svg.text((WIDTH, y + 4), row.figures, anchor="end"),
        ]
    return svg.document(WIDTH, floor + 44, "Ratings with their intervals", parts)
