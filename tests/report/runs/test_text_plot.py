"""Curves in a terminal: inside their frame, at their place, told apart with and without colour."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_kit.report.runs.text_plot import Curve, text_plot

FALLING = [(float(step), 10.0 - step) for step in range(1, 10)]


def curve(points: list[tuple[float, float]], mark: str = "*", *, joined: bool = True) -> Curve:
    return Curve(mark, points, "blue", mark, joined)


def test_a_falling_line_falls_and_the_axes_are_numbered() -> None:
    lines = [line.plain for line in text_plot([curve(FALLING)], width=40, height=6, letters=True)]
    places = [line.index("*") for line in lines[:6]]
    assert places == sorted(places)
    assert places[0] == 9
    assert lines[0].split()[0] == "9"
    assert lines[5].split()[0] == "1"
    assert lines[6].split() == ["1", "9"]
    assert lines[7].split() == ["*", "*"]


def test_dots_are_braille_with_the_curves_colour() -> None:
    lines = text_plot([curve(FALLING)], width=40, height=6)
    drawn = [c for line in lines[:6] for c in line.plain if 0x2800 < ord(c) <= 0x28FF]
    assert len(drawn) >= 6
    assert any(span.style == "blue" for line in lines for span in line.spans)


def test_points_that_are_not_joined_stay_alone() -> None:
    both_ends = [(1.0, 0.0), (100.0, 1.0)]
    joined, alone = (
        "".join(line.plain for line in text_plot([curve(both_ends, joined=j)], height=8, letters=True)[:8])
        for j in (True, False)
    )
    assert alone.count("*") == 2
    assert joined.count("*") > 20


def test_of_nothing_comes_nothing() -> None:
    assert text_plot([]) == text_plot([curve([])]) == []


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300),
    width=st.integers(1, 120),
    height=st.integers(1, 30),
    letters=st.booleans(),
)
def test_every_line_fits(values: list[float], width: int, height: int, letters: bool) -> None:
    points = [(float(step), value) for step, value in enumerate(values)]
    lines = text_plot([curve(points)], width=width, height=height, letters=letters)
    assert len(lines) == max(height, 2) + 2
    assert all(len(line.plain) <= max(width, 17) + 6 for line in lines)


@pytest.mark.parametrize("letters", [True, False])
def test_one_point_alone_is_seen(letters: bool) -> None:
    plot = "".join(line.plain for line in text_plot([curve([(5.0, 2.0)])], letters=letters)[:-1])
    assert plot.count("*") == 1 if letters else any(0x2800 < ord(c) <= 0x28FF for c in plot)
