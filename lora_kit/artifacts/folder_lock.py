"""One process at a time in a folder: ``flock`` on a file that names its owner.

The system drops the lock with its process, so that a killed one never leaves a stale
lock; the file's content only says who it is.
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lora_kit.artifacts.commit import failpoint, sweep
from lora_kit.artifacts.disk import disk_errors
from lora_kit.errors import MachineError, RunLockedError

LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock, as its file names it.

    Args:
        pid: Its id.
        host: Where it runs.
        started: When it took the lock, in ISO 8601.
    """

    pid: int
    host: str
    started: str


def holder(file: Path) -> Owner | None:
    """Who holds a lock file now, None if nobody does. Only looks: it can't keep a run from starting.

    The lock itself is only tried, for a moment, while the process that the file names lives, for then
    nobody else can be about to take it.
    """
    try:
        named = json.loads(file.read_text("utf-8"))
        owner = Owner(int(named["pid"]), str(named["host"]), str(named["started"]))
    except (ValueError, KeyError, TypeError, OSError):
        return None
    if owner.host == socket.gethostname() and not _is_alive(owner.pid):
        return None
    with suppress(OSError), file.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return owner
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # somebody else's
    except (OSError, OverflowError):
        return False
    return pid > 0


@contextmanager
def held(file: Path, *, option: str) -> Iterator[None]:
    """Hold a lock file for the block; it is made if need be, its folder is not.

    Args:
        file: The lock file.
        option: The command line option that chooses another folder, for messages.

    Raises:
        RunLockedError: Another process holds it; names its id, host and start.
        MachineError: The folder can't be written to, or its file system has no locks.
    """
    folder = file.parent
    with disk_errors(folder):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _acquire(descriptor, folder, option, owner=file)
        with disk_errors(folder):
            _write_owner(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(folder: Path, *, option: str = "--out") -> Iterator[None]:
    """Make a folder if need be, keep other processes out for the block, and clear what a killed one left.

    Raises:
        RunLockedError: Another process is at work in it.
        MachineError: It can't be made or written to, or its file system has no locks.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder / LOCK, option=option):
        sweep(folder)
        yield


def lock_stream(descriptor: int, path: Path) -> None:
    """Lock an open file until it is closed; its folder's lock file says who may hold it.

    Raises:
        RunLockedError: Another process holds it.
        MachineError: The file system has no locks.
    """
    _acquire(descriptor, path, "--out", owner=path.with_name(LOCK))


def _acquire(descriptor: int, where: Path, option: str, *, owner: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise RunLockedError(
                f"in use by {_read_owner(owner)}",
                where=str(where),
                cure=f"wait for it to end, or choose another {option}",
            ) from error
        raise MachineError(
            "the file system has no file locks",
            where=str(where),
            cure=f"choose a {option} on a local disk",
        ) from error


def _write_owner(descriptor: int) -> None:
    """Say who we are; as the first write in the folder, it also proves that one can write here."""
    failpoint("run.before_owner")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode() + b"\n", 0)
    os.fsync(descriptor)


def _read_owner(file: Path) -> str:
    try:
        owner = json.loads(file.read_text("utf-8"))
        return f"process {owner['pid']} on {owner['host']} since {owner['started']}"
    except (ValueError, KeyError, TypeError, OSError):  # caught between its lock and its name
        return "another process"
