"""Pictures: data end up inside the frame, at the right end of it, and nothing breaks on little or no data."""

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.report.plots import ForestRow, forest_plot, histogram, loss_plot, small_plot, smooth, thin
from lora_kit.report.svg import Scale, padded, ticks

FINITE = st.floats(-1e9, 1e9, allow_nan=False)
CURVE = st.lists(FINITE, max_size=40).map(lambda ys: [(float(x), y) for x, y in enumerate(ys, start=1)])


def coordinates(picture: str) -> list[float]:
    tree = ET.fromstring(picture)
    numbers = [
        float(value)
        for element in tree.iter()
        for name, value in element.attrib.items()
        if name in {"x", "y", "x1", "y1", "x2", "y2", "cx", "cy"}
    ]
    paths = [element.attrib["d"] for element in tree.iter() if element.tag == "path"]
    return numbers + [float(n) for path in paths for n in re.findall(r"-?[\d.]+(?:e-?\d+)?", path)]


@given(CURVE, CURVE)
def test_curves_stay_inside_their_picture(training: list, validation: list) -> None:
    for picture in (loss_plot(training, validation, 3.0), small_plot(training, "rate")):
        assert all(math.isfinite(n) and -1 <= n <= 761 for n in coordinates(picture))


@given(st.lists(FINITE, min_size=2).map(sorted))
def test_ticks_are_inside_in_order_and_few(ends: list[float]) -> None:
    low, high = ends[0], ends[-1]
    found = ticks(low, high)
    room = (high - low) * 1e-6 + abs(high) * 1e-9 + 1e-12
    assert all(low - room <= tick <= high + room for tick in found)
    assert found == sorted(found)
    assert len(found) <= 7


def test_scale_turns_upside_down_for_the_vertical() -> None:
    y = Scale(0.0, 2.0, 100, 10)
    assert (y(0.0), y(2.0), y(1.0)) == (100, 10, 55)
    assert Scale(1.0, 1.0, 0, 10)(1.0) == 5


@pytest.mark.parametrize(
    ("values", "expected"), [([], (0.0, 1.0)), ([0.0], (-1.0, 1.0)), ([2.0], (1.88, 2.12))]
)
def test_padded(values: list[float], expected: tuple[float, float]) -> None:
    assert padded(values) == pytest.approx(expected)


def test_thin_keeps_the_mean_and_the_count() -> None:
    points = [(float(n), float(n % 7)) for n in range(5000)]
    few = thin(points, 100)
    assert len(few) == 100
    assert sum(y for _, y in few) / 100 == pytest.approx(sum(y for _, y in points) / 5000)
    assert thin(points[:50], 100) == points[:50]


@given(CURVE)
def test_smooth_keeps_ends_and_never_leaves_the_range(points: list) -> None:
    result = smooth(points, 0.2)
    assert [x for x, _ in result] == [x for x, _ in points]
    if points:
        assert (result[0][1], result[-1][1]) == (points[0][1], points[-1][1])
        low, high = min(y for _, y in points), max(y for _, y in points)
        room = 1e-9 * max(abs(low), abs(high))
        assert all(low - room <= y <= high + room for _, y in result)


def test_smooth_of_a_straight_line_is_the_line() -> None:
    line = [(float(n), 3.0 * n) for n in range(50)]
    assert [y for _, y in smooth(line)] == pytest.approx([y for _, y in line])


def test_histogram_bars_are_as_tall_as_their_counts() -> None:
    tree = ET.fromstring(histogram([("≤ 32", 10), ("≤ 64", 20), ("longer", 0)]))
    assert [float(e.attrib["height"]) for e in tree.iter("rect")] == [52.5, 105.0, 0.0]
    assert ET.fromstring(histogram([])) is not None


def test_forest_escapes_titles_and_draws_zero_width() -> None:
    picture = forest_plot([ForestRow("<b>&", 0.0, 0.0, 0.0, "unclear", "0")])
    tree = ET.fromstring(picture)
    assert "<b>&" in [element.text for element in tree.iter("text")]
    assert tree.find("circle").attrib["cx"] == "400.0"  # type: ignore[union-attr]
