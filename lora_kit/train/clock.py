"""The clock of a deadline: one that never jumps and goes on while the machine sleeps."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil

# Linux's monotonic clock stands still in a suspended machine (clock_gettime(2)); macOS's doesn't.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
LONGEST_START = 120.0  # from a process to its command; after more, the process has done other things


def now() -> float:
    """Seconds since some moment; sleep counts, and setting the time of day changes nothing."""
    return time.clock_gettime(_CLOCK)


def wall() -> datetime:
    """The time of day, with the machine's own zone."""
    return datetime.now().astimezone()


def process_began() -> float:
    """When this process began, as ``now`` counts; now, if it has done other things since."""
    age = _process_age()
    return now() - (age if 0.0 <= age <= LONGEST_START else 0.0)


def _process_age() -> float:
    """Field 22 of /proc/self/stat: clock ticks from boot to the process's start (proc(5))."""
    try:
        ticks = int(Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()[19])
        return now() - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time() - psutil.Process().create_time()


def next_time(clock_time: str, after: datetime) -> datetime:
    """Return when a clock on the wall shows ``23:00`` next.

    Args:
        clock_time: Hours and minutes.
        after: Some moment, in the machine's own zone (whose offset may be another by then).
    """
    hour, minute = map(int, clock_time.split(":"))
    today = after.replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None)
    found = today.astimezone()  # a moment without zone is one of the machine's zone
    return found if found > after else (today + timedelta(days=1)).astimezone()


@dataclass(slots=True)
class Session:
    """The part of a run that one process makes.

    Args:
        began: When its time began to count, as ``clock`` does.
        clock: Seconds that never jump.
        wall: The time of day; asked once, when the session's end is found.
        used_before: Seconds that the run's earlier sessions used; None until that is read.
        starting: Seconds from ``began`` to a model with its rows, as every command on the run takes them.
    """

    began: float
    clock: Callable[[], float] = now
    wall: Callable[[], datetime] = wall
    used_before: float | None = None
    starting: float = 0.0

    @property
    def used_seconds(self) -> float:
        """Of the run's time, until now."""
        return (self.used_before or 0.0) + self.clock() - self.began
