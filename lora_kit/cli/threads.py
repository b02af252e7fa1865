"""Whether another program computes as well, and how threads wait for each other where it does.

torch's threads on Linux (libgomp's) spin for some milliseconds before they sleep, and then hold the core that
the one they wait for should have. SmolLM2-135M on 2 cores, one of them busy with something else: 7.0 s a
training step, 4.7 s where they sleep soon; with nothing else 2.5 s and 2.8 s. So they do only where it pays.
"""

import os
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path

from lora_kit.own_process import usable_cores

COMPUTING = frozenset({"audit", "evaluate", "plan", "reproduce", "run", "train", "verify"})
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
SOON = "1000"  # turns of the waiting loop: some microseconds
LOOKS, BETWEEN_SECONDS = 5, 0.01


def sleep_soon_if_busy(
    command: str,
    environment: MutableMapping[str, str] = os.environ,
    running: Callable[[], int | None] | None = None,
) -> bool:
    """Set GOMP_SPINCOUNT if others compute all the time; only before torch is imported does that count.

    Args:
        command: The command's name; most don't compute.
        environment: The process's own; what the user set there stays.
        running: How many threads of the machine want a core now, this one among them; None if nobody knows.

    Returns:
        Whether it was set.
    """
    if command not in COMPUTING or any(name in environment for name in SETTINGS):
        return False
    if not _always_running(2, running):
        return False
    environment["GOMP_SPINCOUNT"] = SOON
    return True


def core_is_free(running: Callable[[], int | None] | None = None) -> bool:
    """Whether a second process would not hold this one up.

    Args:
        running: As for :func:`sleep_soon_if_busy`; where nobody knows, only this one is taken to run.
    """
    return not _always_running(usable_cores(), running)


def _always_running(threads: int, running: Callable[[], int | None] | None) -> bool:
    """Whether so many threads want a core, this one among them, each time that one looks."""
    for look in range(LOOKS):
        if look:
            time.sleep(BETWEEN_SECONDS)
        if ((running or _running)() or 1) < threads:
            return False
    return True


def _running() -> int | None:
    """Read the fourth value of Linux's /proc/loadavg, such as ``2/345``."""
    try:
        return int(Path("/proc/loadavg").read_text("ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return None
