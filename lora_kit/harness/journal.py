"""Append-only file of what engines answered, so that a cut evaluation loses nothing.

One JSON line a result, written as soon as it is there; the key is a hash of all that
the result depends on (prompt, reference, engine, limit), so an edited prompt or another
adapter is asked anew and everything else is not. Failures are never kept.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lora_kit.artifacts.disk import disk_errors
from lora_kit.artifacts.folder_lock import lock_stream

VERSION = 1


def key_of(*parts: str | int) -> str:
    """Hash (hex) of what a result depends on."""
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()


class Journal:
    """Results by key.

    Args:
        path: Where they are kept.
        known: What is there already.
        stream: Where more is appended; None keeps them in memory only.
    """

    def __init__(self, path: Path | None, known: dict[str, dict[str, Any]], stream: BinaryIO | None) -> None:
        self._path = path
        self._known = known
        self._stream = stream

    def get(self, key: str) -> dict[str, Any] | None:
        """The result under a key, if there is one."""
        return self._known.get(key)

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Keep a result.

        Raises:
            MachineError: The disk refuses.
            ValueError: The record holds NaN or infinity.
        """
        line = json.dumps({"key": key, **record}, ensure_ascii=False, allow_nan=False) + "\n"
        if self._stream is not None and self._path is not None:
            with disk_errors(self._path):
                self._stream.write(line.encode("utf-8", "backslashreplace"))
                self._stream.flush()
        self._known[key] = record


@contextmanager
def open_journal(path: Path | None) -> Iterator[Journal]:
    """Open or create a journal; None gives one that is forgotten.

    A line that a killed process left unfinished is skipped and asked again. Two processes that append to
    one journal would ask everything twice, so the second is refused.

    Raises:
        RunLockedError: Another process writes it.
        MachineError: The file can't be read or written.
    """
    if path is None:
        yield Journal(None, {}, None)
        return
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+b")
    with stream:
        lock_stream(stream.fileno(), path)
        with disk_errors(path):
            known, is_torn = _read(stream)
            if is_torn:
                stream.write(b"\n")
        yield Journal(path, known, stream)
        with disk_errors(path):
            stream.flush()
            os.fsync(stream.fileno())


def _read(stream: BinaryIO) -> tuple[dict[str, dict[str, Any]], bool]:
    """All whole lines, and whether the last one is not."""
    stream.seek(0)
    known: dict[str, dict[str, Any]] = {}
    line = b"\n"
    for line in stream:
        try:
            record = json.loads(line)
            known[record.pop("key")] = record
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return known, not line.endswith(b"\n")
