"""The pictures of a report: loss over steps, small curves, a histogram, and the forest of differences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from lora_kit.report import svg
from lora_kit.report.svg import Point, Scale
from lora_kit.report.wording import nats

MOST_POINTS = 600  # of a curve; more can't be seen and would make the page heavy


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One difference with its interval, turned so that better is to the right.

    Args:
        title: The metric.
        low: Lower end.
        middle: The difference.
        high: Upper end.
        css: ``good``, ``bad`` or ``unclear``.
        figures: The numbers as text, in the metric's own direction.
    """

    title: str
    low: float
    middle: float
    high: float
    css: str
    figures: str


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most ``most`` points: the means of equal buckets."""
    if len(points) <= most:
        return list(points)
    edges = [index * len(points) // most for index in range(most + 1)]
    buckets = [points[start:end] for start, end in pairwise(edges)]
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in buckets]


def smooth(points: Sequence[Point], share: float = 0.04) -> list[Point]:
    """Centred moving mean, which does not lag behind a falling curve; narrower towards both ends."""
    reach = round(share * len(points))
    result = []
    for index, (x, _) in enumerate(points):
        near = min(reach, index, len(points) - 1 - index)
        window = points[index - near : index + near + 1]
        result.append((x, sum(y for _, y in window) / len(window)))
    return result


def loss_plot(training: Sequence[Point], validation: Sequence[Point], kept_step: float | None) -> Markup:
    """Training loss, its moving mean, the validation points and the step that was kept."""
    axes = _Axes(760, 300, [*training, *validation])
    curve = thin(training)
    parts = [
        *axes.frame("step", "loss (nats per token)"),
        svg.path(axes.place(curve), "curve faint"),
        svg.path(axes.place(smooth(curve)), "curve training"),
        svg.path(axes.place(validation), "curve validation thin"),
    ]
    if kept_step is not None and axes.x.low <= kept_step <= axes.x.high:
        x = axes.x(kept_step)
        parts.append(svg.line((x, axes.top), (x, axes.bottom), "kept"))
    if len(training) == 1:
        parts.append(svg.dot(axes.place(training)[0], "point training"))
    parts += [
        svg.dot(at, "point validation", f"step {step:g}: validation loss {nats(loss)}")
        for at, (step, loss) in zip(axes.place(validation), validation, strict=True)
    ]
    return svg.document(760, 300, "Training and validation loss over steps", parts)


def curves_plot(curves: Sequence[tuple[str, Sequence[Point]]], dots: Sequence[Sequence[Point]]) -> Markup:
    """Labelled curves, and single points in the colour of each (classes ``curve-N`` and ``dot-N``)."""
    axes = _Axes(760, 300, [point for _, points in curves for point in points] + [p for d in dots for p in d])
    parts = axes.frame("step", "loss (nats per token)")
    for index, (label, points) in enumerate(curves):
        parts.append(svg.path(axes.place(thin(points)), f"curve-{index}"))
        row, column = divmod(index, 4)
        at = (20.0 + 185 * column, 316.0 + 18 * row)
        parts += [svg.dot((at[0] - 8, at[1] - 4), f"dot-{index}"), svg.text(at, label[:28])]
    for index, points in enumerate(dots):
        parts += [
            svg.dot(place, f"dot-{index}", nats(loss), radius=3)
            for place, (_, loss) in zip(axes.place(points), points, strict=True)
        ]
    return svg.document(760, 340, "Losses of several runs over steps", parts)


def small_plot(points: Sequence[Point], title: str) -> Markup:
    """One curve over the steps."""
    axes = _Axes(370, 170, points, from_zero=True)
    parts = [*axes.frame("", title, count=3), svg.path(axes.place(thin(points)), "curve training")]
    return svg.document(370, 170, f"{title} over steps", parts)


def histogram(bars: Sequence[tuple[str, int]]) -> Markup:
    """Upright bars with their label below and their count above."""
    width, height, floor = 760, 170, 140
    tallest = max((count for _, count in bars), default=0) or 1
    pitch = (width - 20) / max(len(bars), 1)
    parts = [svg.line((10, floor), (width - 10, floor), "axis")]
    for index, (label, count) in enumerate(bars):
        center, tall = round(10 + pitch * (index + 0.5), 2), round(105 * count / tallest, 2)
        wide = min(pitch * 0.7, 64)
        corner = (round(center - wide / 2, 2), floor - tall)
        parts += [
            svg.box(corner, wide, tall, "bar"),
            svg.text((center, floor + 18), label, anchor="middle"),
            svg.text((center, floor - tall - 6), f"{count:,}", anchor="middle"),
        ]
    return svg.document(width, height, "Examples by length in tokens", parts)


def layer_bars(bars: Sequence[tuple[str, float]], title: str) -> Markup:
    """Upright bars side by side, with their names below as far as there is room, and values at a touch."""
    width, floor, tall = 760, 130, 100
    pitch, most = (width - 20) / max(len(bars), 1), max((value for _, value in bars), default=0) or 1
    every = max(1, round(24 / pitch))
    parts = [
        svg.line((10, floor), (width - 10, floor), "axis"),
        svg.text((10, 14), f"{title}, up to {most:.3g}"),
    ]
    for index, (name, value) in enumerate(bars):
        left, height = round(10 + pitch * (index + 0.1), 2), round(tall * value / most, 2)
        parts.append(
            svg.box((left, round(floor - height, 2)), pitch * 0.8, height, "bar", f"{name}: {value:.3g}")
        )
        if index % every == 0:
            parts.append(svg.text((round(left + pitch * 0.4, 2), floor + 18), name[:12], anchor="middle"))
    return svg.document(width, floor + 30, title, parts)


def forest_plot(rows: Sequence[ForestRow]) -> Markup:
    """Differences on a common zero line; each row has its own scale, since units differ."""
    pitch, top, zero, reach, right = 34, 26, 400, 125, 760
    height = top + pitch * len(rows) + 8
    parts = [
        svg.line((zero, top - 6), (zero, height - 6), "zero"),
        svg.text((zero - 10, 14), "← worse", anchor="end", css="label muted"),
        svg.text((zero + 10, 14), "better →", css="label muted"),
    ]
    for index, row in enumerate(rows):
        y = top + pitch * (index + 0.5)
        extent = max(abs(row.low), abs(row.high), abs(row.middle)) or 1.0
        place: Callable[[float], float] = Scale(-extent, extent, zero - reach, zero + reach)
        low, middle, high = place(row.low), place(row.middle), place(row.high)
        parts += [
            svg.text((0, y + 4), row.title),
            svg.line((low, y), (high, y), f"interval {row.css}"),
            svg.line((low, y - 5), (low, y + 5), f"interval {row.css}"),
            svg.line((high, y - 5), (high, y + 5), f"interval {row.css}"),
            svg.dot((middle, y), f"point {row.css}", row.figures, radius=5),
            svg.text((right, y + 4), row.figures, anchor="end"),
        ]
    return svg.document(right, height, "Differences with their intervals", parts)


class _Axes:
    """The frame of a curve plot: where data go, and the lines and numbers around them."""

    def __init__(self, width: int, height: int, points: Sequence[Point], *, from_zero: bool = False) -> None:
        self.left, self.right, self.top, self.bottom = 56, width - 12, 26, height - 34
        values = [y for _, y in points] + ([0.0] if from_zero else [])
        low, high = svg.padded(values)
        self.low = max(low, 0.0) if not values or min(values) >= 0 else low
        self.high = high
        steps = [x for x, _ in points] or [0.0, 1.0]
        self.x = Scale(min(steps), max(steps), self.left, self.right)
        self.y = Scale(self.low, self.high, self.bottom, self.top)

    def place(self, points: Sequence[Point]) -> list[Point]:
        """Pixels of data points."""
        return [(self.x(x), self.y(y)) for x, y in points]

    def frame(self, x_title: str, y_title: str, count: int = 5) -> list[Markup]:
        """Grid, axis, numbers and titles."""
        parts = [svg.text((0, 14), y_title, css="label muted")]
        for value in svg.ticks(self.low, self.high, count):
            y = self.y(value)
            parts.append(svg.line((self.left, y), (self.right, y), "grid"))
            parts.append(svg.text((self.left - 8, y + 4), f"{value:g}", anchor="end"))
        parts.append(svg.line((self.left, self.bottom), (self.right, self.bottom), "axis"))
        steps = svg.ticks(self.x.low, self.x.high, 8 if count > 3 else 4)
        parts += [
            svg.text((self.x(step), self.bottom + 18), f"{step:,.0f}", anchor="middle")
            for step in steps
            if step.is_integer()
        ]
        if x_title:
            parts.append(svg.text((self.right, self.bottom + 32), x_title, anchor="end", css="label muted"))
        return parts
