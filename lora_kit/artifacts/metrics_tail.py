"""Reads metrics.jsonl while another process writes it: only what is new, and never a half line."""

import json
from pathlib import Path
from typing import Any


class MetricsTail:
    """The lines of a log so far; ``read`` adds what came since the last time.

    A resume cuts the log back and writes the same steps again. So when the file has shrunk, or a line
    doesn't follow the one before, the log is read from its beginning.

    Args:
        path: The log; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """All records so far. What can't be read, or is no record, is left out: this only watches."""
        try:
            if not self._read_on():
                self.records, self._offset = [], 0
                self._read_on()
        except FileNotFoundError:
            self.records, self._offset = [], 0
        return self.records

    def _read_on(self) -> bool:
        """Read from where we were; False if the file is another one now."""
        with self.path.open("rb") as stream:
            if stream.seek(0, 2) < self._offset:
                return False
            stream.seek(self._offset)
            content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]  # the rest is being written, or was cut by a power loss
        found = [record for line in whole.splitlines() if (record := _record(line))]
        follows = found and found[0]["step"] == self._last_step() + 1
        if self._offset and whole and not follows:
            return False
        self.records = [*self.records, *found]
        self._offset += len(whole)
        return True

    def _last_step(self) -> int:
        return self.records[-1]["step"] if self.records else 0


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_step = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if is_step else None
