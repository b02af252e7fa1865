"""Where what can be made again is kept between runs, and how two processes don't make it at once.

``$LORA_KIT_CACHE`` or ``~/.cache/lora_kit``: converted bases and their hashes (``model/cache.py``), encoded
rows (``data/cache.py``). Everything in it can be deleted at any time.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """Return the cache folder, whether it exists or not."""
    configured = os.environ.get("LORA_KIT_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "lora_kit"


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file for the block; yields whether it is held, which without waiting it may not be.

    Args:
        file: Made if need be; its folder is not.
        wait: Whether to wait for another process that holds it.
    """
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
