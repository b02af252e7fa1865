"""metrics.jsonl: one line a step, appended whole or not at all.

A checkpoint records the log's offset (in lines) after ``sync`` and a hash of what it says; a
resume truncates to the one, compares the other, and writes the same lines again, so that the
log of a cut run equals the unbroken one but for the fields that read the clock.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_kit.artifacts.commit import failpoint
from lora_kit.artifacts.disk import disk_errors, sync_directory
from lora_kit.errors import DataError, MachineError

WALL_CLOCK_FIELDS = ("seconds", "tokens_per_second", "peak_memory_bytes")


class MetricsLog:
    """Append-only JSON lines; opens its file at the first use.

    Args:
        path: The log; its directory must exist. A half line at its end (a power cut) is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._lines = 0
        self._hash: Any = None  # of the lines so far, made when it is first asked for

    def _open(self) -> int:
        if self._descriptor is None:
            is_new = not self.path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o666)
            content = self.path.read_bytes()
            os.ftruncate(self._descriptor, content.rfind(b"\n") + 1)
            self._lines = content.count(b"\n")
            if is_new:  # or a power cut may take its name, and leave checkpoints that count its lines
                sync_directory(self.path.parent)
        return self._descriptor

    @property
    def offset(self) -> int:
        """Lines so far. Not bytes: the clock's fields change a line's length, and a checkpoint must not.

        Raises:
            MachineError: The file can't be opened.
        """
        with disk_errors(self.path):
            self._open()
            return self._lines

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line; it survives the process's death, and after ``sync`` the machine's.

        Raises:
            MachineError: Disk full, read-only, or gone; no part of the line stays.
            ValueError: The record holds NaN or infinity.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        data = line.encode("utf-8", "backslashreplace")
        with disk_errors(self.path, needed_bytes=len(data)):
            descriptor = self._open()
            start = os.fstat(descriptor).st_size
            try:
                failpoint("metrics.before_line")
                written = 0
                while written < len(data):  # a disk that fills up takes a part first, then refuses
                    written += os.write(descriptor, data[written:])
            except BaseException:
                os.ftruncate(descriptor, start)
                raise
            self._lines += 1
            if self._hash is not None:
                self._hash.update(_stable(json.loads(data)))
            failpoint("metrics.after_line")

    def sync(self) -> None:
        """Force what was appended to the disk; before a checkpoint that records the offset.

        Raises:
            MachineError: Disk full or gone.
        """
        with disk_errors(self.path):
            os.fsync(self._open())
            failpoint("metrics.after_sync")

    def digest(self) -> str:
        """Return ``stable_digest`` of the lines so far, without reading them all again each time.

        Raises:
            DataError: A line is damaged.
            MachineError: The file can't be read.
        """
        if self._hash is None:
            self._hash = _hashed(stream_metrics(self.path))
        digest: str = self._hash.hexdigest()
        return digest

    def truncate(self, offset: int, digest: str | None = None) -> None:
        """Cut the lines after a checkpoint, which the resumed run writes again.

        Args:
            offset: Lines to keep, as ``offset`` gave it when the checkpoint was saved.
            digest: What ``digest`` gave then; None does not compare.

        Raises:
            DataError: A line is damaged.
            MachineError: The log has fewer lines, or others: it was changed.
        """
        with disk_errors(self.path):
            descriptor = self._open()
            lines = self.path.read_bytes().split(b"\n")[:-1]
            found = f"has {len(lines)} lines, the checkpoint was saved after {offset}"
            if len(lines) >= offset:
                self._hash = _hashed(_parse(line, str(self.path)) for line in lines[:offset])
                found = f"its first {offset} lines were changed since the checkpoint was saved"
            if len(lines) < offset or digest not in (None, self._hash.hexdigest()):
                cure = "restore the file, or choose another --run-dir"
                raise MachineError(found, where=str(self.path), cure=cure)
            os.ftruncate(descriptor, sum(len(line) + 1 for line in lines[:offset]))
            self._lines = offset
            failpoint("metrics.after_truncate")

    def close(self) -> None:
        """Give the file back; the next use opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read all lines at once, as ``stream_metrics``."""
    return list(stream_metrics(path))


def stream_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield all whole lines; a half last line is left out, a missing file is an empty log.

    Raises:
        DataError: A line in the middle is not a JSON object.
        MachineError: The file can't be read.
    """
    if not path.exists():
        return
    with disk_errors(path), path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.endswith(b"\n"):
                yield _parse(line[:-1], f"{path}:{number}")


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError("is not JSON", where=where) from error
    if not isinstance(record, dict):
        raise DataError("is not a JSON object", where=where)
    return record


def stable_digest(path: Path) -> str:
    """Hash what the log says apart from WALL_CLOCK_FIELDS: equal for a cut run and an unbroken one.

    Returns:
        64 hex digits.

    Raises:
        DataError, MachineError: As ``read_metrics``.
    """
    digest: str = _hashed(stream_metrics(path)).hexdigest()
    return digest


def _hashed(records: Iterable[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - hashlib's type has no public name
    digest = hashlib.sha256()
    for record in records:
        digest.update(_stable(record))
    return digest


def _stable(record: Mapping[str, Any]) -> bytes:
    stable = {key: value for key, value in record.items() if key not in WALL_CLOCK_FIELDS}
    return json.dumps(stable).encode() + b"\n"
