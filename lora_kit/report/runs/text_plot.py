"""A plot of curves in a terminal: braille dots with colours, one letter a curve where there are neither."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.text import Text

from lora_kit.report.plots import thin
from lora_kit.report.svg import Point, Scale

# The bit of each dot in a braille character (two columns, four rows): Unicode block U+2800.
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800
_MARGIN = 9


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot.

    Args:
        label: What it is.
        points: (step, value), by step.
        style: Its colour, as rich names it.
        mark: Its letter where there are no colours.
        joined: Whether its points are joined.
    """

    label: str
    points: Sequence[Point]
    style: str
    mark: str
    joined: bool = True


class _Canvas:
    """Dots on a grid of character cells.

    Args:
        width: Cells.
        height: Cells.
        letters: One letter in a cell instead of eight dots.
    """

    def __init__(self, width: int, height: int, *, letters: bool) -> None:
        self.letters = letters
        self.per_cell = (1, 1) if letters else (2, 4)
        self.cells: list[list[tuple[int | str, str]]] = [[(0, "")] * width for _ in range(height)]
        self.right, self.bottom = width * self.per_cell[0] - 1, height * self.per_cell[1] - 1

    def dot(self, x: int, y: int, curve: Curve) -> None:
        """Set a dot; the later curve has the cell's colour."""
        row, column = y // self.per_cell[1], x // self.per_cell[0]
        if self.letters:
            self.cells[row][column] = (curve.mark, "")
            return
        before = self.cells[row][column][0]
        bit = _BITS[y % 4][x % 2]
        self.cells[row][column] = (int(before) | bit, curve.style)

    def line(self, start: tuple[int, int], end: tuple[int, int], curve: Curve) -> None:
        """Set all dots between two."""
        count = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
        for index in range(count + 1):
            share = index / count
            x, y = (round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
            self.dot(x, y, curve)

    def rows(self) -> list[Text]:
        """The cells as lines."""
        lines = []
        for row in self.cells:
            line = Text(no_wrap=True)
            for cell, style in row:
                line.append((chr(_BRAILLE + cell) if cell else " ") if isinstance(cell, int) else cell, style)
            lines.append(line)
        return lines


def text_plot(
    curves: Sequence[Curve], *, width: int = 72, height: int = 12, letters: bool = False
) -> list[Text]:
    """Draw curves over steps.

    Args:
        curves: What to draw, the most important last.
        width: Characters in all.
        height: Lines of the plot itself; two more follow with steps and labels.
        letters: Draw one letter a curve, for a terminal without colours or without Unicode.

    Returns:
        Lines; none if there is no point at all.
    """
    points = [point for curve in curves for point in curve.points]
    if not points:
        return []
    canvas = _Canvas(max(width - _MARGIN, 8), max(height, 2), letters=letters)
    values, steps = [y for _, y in points], [x for x, _ in points]
    low, high = min(values), max(values)
    across, down = (
        Scale(min(steps), max(steps), 0, canvas.right),
        Scale(low, high, canvas.bottom, 0),
    )
    for curve in curves:
        drawn = thin(curve.points, canvas.right + 1)
        places = [(round(across(x)), round(down(y))) for x, y in drawn]
        for place in places:
            canvas.dot(*place, curve)
        for start, end in pairwise(places) if curve.joined else ():
            canvas.line(start, end, curve)
    rows = canvas.rows()
    ends = {0: high, len(rows) - 1: low}
    axis = "|" if letters else "│"
    lines = [
        Text(f"{ends[n]:>{_MARGIN - 2}.3g} {axis}" if n in ends else f"{'':{_MARGIN - 1}}{axis}") + row
        for n, row in enumerate(rows)
    ]
    first, last = f"{min(steps):.0f}", f"{max(steps):.0f}"
    lines.append(Text(f"{'':{_MARGIN}}{first}{last:>{max(len(canvas.cells[0]) - len(first), 0)}}"))
    return [*lines, _legend(curves, letters=letters)]


def _legend(curves: Sequence[Curve], *, letters: bool) -> Text:
    line = Text(" " * _MARGIN)
    for curve in curves:
        line.append(f"{curve.mark if letters else '━'} ", "" if letters else curve.style)
        line.append(f"{curve.label}   ")
    return line
