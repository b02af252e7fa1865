from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.harness.retry import LONGEST_WAIT_SECONDS, RetryRules, Timer, retry_after_seconds


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_waits_grow_and_are_capped(attempt, jitter):
    wait = RetryRules().wait(attempt, None, jitter)
    assert 0.25 <= wait <= LONGEST_WAIT_SECONDS
    assert wait <= RetryRules().wait(attempt + 1, None, 1.0)


@given(asked=st.floats(0, 1e6), jitter=st.floats(0, 1))
def test_what_the_server_asks_for_is_kept_up_to_a_minute(asked, jitter):
    wait = RetryRules().wait(1, asked, jitter)
    assert min(asked, LONGEST_WAIT_SECONDS) <= wait <= LONGEST_WAIT_SECONDS


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        (None, None),
        ("", None),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("x", None),
    ],
)
def test_seconds(value, seconds):
    assert retry_after_seconds(value) == seconds


def test_dates():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < retry_after_seconds(soon) <= 30
    assert retry_after_seconds("Mon, 01 Jan 2001 00:00:00 GMT") == 0.0
    assert retry_after_seconds("Mon, 01 Jan 2001 00:00:00 -0000") == 0.0


def test_stop_wakes_a_sleeper():
    timer = Timer()
    timer.stop()
    timer.sleep(60.0)
