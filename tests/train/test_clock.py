"""The next time of day, and a clock that begins with the process."""

import time
from datetime import datetime

import pytest

from lora_kit.train.clock import next_time, now, process_began


@pytest.mark.parametrize(
    ("zone", "after", "clock_time", "expected"),
    [
        ("UTC", "2026-11-23T22:59:59+00:00", "23:00", "2026-11-23T23:00:00+00:00"),
        ("UTC", "2026-11-23T23:00:00+00:00", "23:00", "2026-11-24T23:00:00+00:00"),
        ("UTC", "2026-12-31T23:30:00+00:00", "6:05", "2027-01-01T06:05:00+00:00"),
        # The night in which Berlin's clocks go back has 25 hours, and one that goes forward 23.
        ("Europe/Berlin", "2026-10-24T22:00:00+02:00", "07:00", "2026-10-25T07:00:00+01:00"),
        ("Europe/Berlin", "2026-03-28T22:00:00+01:00", "07:00", "2026-03-29T07:00:00+02:00"),
    ],
)
def test_the_next_time_of_day(
    monkeypatch: pytest.MonkeyPatch, zone: str, after: str, clock_time: str, expected: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert next_time(clock_time, datetime.fromisoformat(after)) == datetime.fromisoformat(expected)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_process_began_before_now() -> None:
    assert process_began() <= now()


def test_an_old_process_begins_to_count_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_kit.train.clock.LONGEST_START", 0.0)
    before = now()
    assert before <= process_began() <= now()
