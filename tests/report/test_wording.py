"""Numbers as people read them."""

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.report import svg, wording, write
from lora_kit.report.wording import (
    MISSING,
    decimals_for,
    duration,
    excerpt,
    median,
    number,
    p_value,
    plain,
    signed,
    size,
)

ANYTHING = st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.booleans(), st.lists(st.integers()))


@pytest.mark.parametrize("module", [wording, svg, write])
def test_examples_in_docstrings(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted
    assert not result.failed


@given(ANYTHING)
def test_nothing_from_a_file_breaks_the_words(value: object) -> None:
    for word in (number, signed, p_value, duration, size, plain, excerpt):
        assert isinstance(word(value), str)
    decimals_for(value, value)


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.5, 2, "0.50"),
        (-0.412, 2, "\N{MINUS SIGN}0.41"),
        (-0.0001, 2, "0.00"),
        (0.0, None, "0"),
        (True, None, MISSING),
    ],
)
def test_number(value: float, decimals: int | None, text: str) -> None:
    assert number(value, decimals) == text


def test_signed() -> None:
    assert [signed(v, 1) for v in (0.3, -0.3, 0.01, 0.0)] == ["+0.3", "\N{MINUS SIGN}0.3", "0.0", "0.0"]


@pytest.mark.parametrize(
    ("low", "high", "decimals"),
    [(-0.47, -0.35, 2), (1.0, 3.5, 1), (0, 250, 0), (0.1, 0.1, None), (math.nan, 1, None)],
)
def test_decimals_show_two_digits_of_the_interval(low: float, high: float, decimals: int | None) -> None:
    assert decimals_for(low, high) == decimals


def test_small_p_is_a_bound() -> None:
    assert [p_value(p) for p in (0.0, 0.0004, 0.034, 1.0)] == ["< 0.001", "< 0.001", "0.034", "1"]


def test_units() -> None:
    assert [size(n) for n in (999, 2_500, 1_234_000, 3.21e9)] == ["999 bytes", "2.5 kB", "1.2 MB", "3.2 GB"]
    assert [duration(s) for s in (59.96, 119.7, 3599.9, 7260)] == [
        "1 min 00 s",
        "2 min 00 s",
        "1 h 00 min",
        "2 h 01 min",
    ]


def test_median() -> None:
    assert [median(v) for v in ([], [3.0], [1.0, 9.0], [5.0, 1.0, 2.0])] == [None, 3.0, 5.0, 2.0]


def test_control_characters_become_visible() -> None:
    assert plain("a\x1b[31m\u202eb\n\tc\ud800") == "a\ufffd[31m\ufffdb\n\tc\ufffd"
    assert excerpt("one\n two " + "x" * 200, 12) == "one two xxx…"
