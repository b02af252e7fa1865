"""The few pieces of SVG that the plots are made of, as escaped markup without any inline style.

Colours come from classes of the page's style sheet, so that a plot follows the
reader's light or dark mode, and the page can forbid inline styles altogether.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]
_NICE_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """Data to pixels along one axis.

    Args:
        low: Data value at ``start``.
        high: Data value at ``end``.
        start: Pixel.
        end: Pixel.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixel of a value; the middle if the axis has no extent."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 2)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values within an interval, about ``count`` of them.

    Example:
        >>> ticks(0.13, 0.92, 4)
        [0.2, 0.4, 0.6, 0.8]
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * power for nice in _NICE_STEPS if nice * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, last + 1)]


def padded(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """The range of values, with some room at both ends; (0, 1) of nothing."""
    known = list(values)
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def document(width: int, height: int, label: str, parts: Sequence[Markup]) -> Markup:
    """A whole picture; ``label`` is read aloud by screen readers."""
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, label)
    return head + Markup("").join(parts) + Markup("</svg>")


def line(start: Point, end: Point, css: str) -> Markup:
    """A straight line."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(*start, *end, css)


def text(at: Point, content: str, *, anchor: str = "start", css: str = "label") -> Markup:
    """One line of text; ``anchor`` is start, middle or end."""
    return Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>').format(
        *at, anchor, css, content
    )


def dot(at: Point, css: str, hint: str = "", radius: float = 4) -> Markup:
    """A point; ``hint`` shows when one points at it."""
    title = Markup("<title>{}</title>").format(hint) if hint else Markup("")
    return Markup('<circle cx="{}" cy="{}" r="{}" class="{}">{}</circle>').format(*at, radius, css, title)


def slanted(at: Point, content: str) -> Markup:
    """One line of text that climbs to the right, for narrow columns."""
    return Markup('<text transform="translate({} {}) rotate(-40)" class="label">{}</text>').format(
        *at, content
    )


def box(
    corner: Point, width: float, height: float, css: str, hint: str = "", *, opacity: float = 1.0
) -> Markup:
    """A rectangle from its upper left corner."""
    title = Markup("<title>{}</title>").format(hint) if hint else Markup("")
    fade = Markup("") if opacity == 1.0 else Markup(' fill-opacity="{}"').format(round(opacity, 2))
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="2" class="{}"{}>{}</rect>').format(
        *corner, round(width, 2), round(height, 2), css, fade, title
    )


def path(points: Sequence[Point], css: str) -> Markup:
    """A line through points, empty for fewer than two."""
    if len(points) < 2:
        return Markup("")
    steps = " ".join(f"{'L' if index else 'M'}{x:g} {y:g}" for index, (x, y) in enumerate(points))
    return Markup('<path d="{}" class="{}"/>').format(steps, css)
