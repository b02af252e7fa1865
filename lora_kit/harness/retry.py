"""When to ask again, and after how long: capped exponential back-off with jitter, or what the server says.

A server's Retry-After is honoured up to a minute; the number of attempts and the total time
are bounded, so that a dead server ends an evaluation instead of holding it.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT_SECONDS = 60.0
FIRST_WAIT_SECONDS = 0.5
_NEVER_AGAIN = frozenset({400, 401, 402, 403, 404, 405, 410, 413, 414, 415, 422})
_STOPS_ALL = frozenset({401, 402})
_ABOUT_ONE = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How persistent to be.

    Args:
        attempts: Most requests for one question.
        total_seconds: No wait begins that would end after so long since the first attempt.
    """

    attempts: int = 6
    total_seconds: float = 300.0

    def wait(self, attempt: int, retry_after: float | None, jitter: float) -> float:
        """Seconds to wait after a failed attempt.

        Args:
            attempt: 1 for the first.
            retry_after: What the server asked for.
            jitter: 0..1, drawn anew each time, so that parallel requests don't come back together.

        Example:
            >>> [RetryRules().wait(k, None, 1.0) for k in (1, 2, 3, 20)]
            [0.5, 1.0, 2.0, 60.0]
            >>> RetryRules().wait(1, 3600.0, 0.0)
            60.0
        """
        if retry_after is not None:
            return min(LONGEST_WAIT_SECONDS, retry_after + 0.1 * jitter)
        longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(attempt - 1, 20))
        return longest * (0.5 + 0.5 * jitter)


class Timer:
    """Clock, sleep and chance, so that tests need none of them; ``stop`` wakes all sleepers.

    Args:
        clock: Seconds that only go forward.
        sleep: Waits so many seconds; None sleeps until ``stop``.
        chance: 0..1.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.stopped = threading.Event()
        self.clock = clock
        self.sleep = sleep or self.stopped.wait
        self.chance = chance

    def stop(self) -> None:
        """Whoever sleeps or waits for the network gives up now."""
        self.stopped.set()


def is_final(status: int) -> bool:
    """Whether the same request would get the same answer."""
    return status in _NEVER_AGAIN


def stops_all(status: int) -> bool:
    """Whether no other request will do better: the key is wrong, or the account is empty."""
    return status in _STOPS_ALL


def is_about_one(status: int) -> bool:
    """Whether the fault is with this request, such as its length, and says nothing of the next."""
    return status in _ABOUT_ONE


def retry_after_seconds(value: str | None) -> float | None:
    """Read a Retry-After header: seconds or a date; None if it is absent or makes no sense.

    Example:
        >>> retry_after_seconds("2"), retry_after_seconds("soon"), retry_after_seconds("-1")
        (2.0, None, None)
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return _until(value)
    return seconds if 0.0 <= seconds < float("inf") else None


def _until(date: str) -> float | None:
    try:
        when = parsedate_to_datetime(date)
    except ValueError:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())
