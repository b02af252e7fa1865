"""What the operating system says about the disk, as one line that a user can act on.

Every write of a run goes through here, so that a full or read-only disk is a
``MachineError`` with bytes and a path, never a traceback. fsync of the file alone
does not keep its name: the directory is synced as well.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_kit.errors import MachineError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_GONE = (errno.ENOENT, errno.ESTALE)
_FILE = (errno.EEXIST, errno.ENOTDIR)
_CURES = {
    **dict.fromkeys(_FULL, "free some space and run the same command again; what was saved before is intact"),
    **dict.fromkeys(_FORBIDDEN, "choose a directory that you can write to, or mend its permissions"),
    **dict.fromkeys(_GONE, "its directory does not exist: was it moved or deleted while in use?"),
    **dict.fromkeys(_FILE, "a file is where a directory is to be: choose another place"),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "allow more open files, such as: ulimit -n 1024",
}


def readable_bytes(count: int) -> str:
    """Write a number of bytes for people: ``"1.5 MB"`` (decimal units)."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def free_bytes(path: Path) -> int:
    """Bytes that are free where ``path`` is or would be; 0 if the system can't say."""
    existing = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), None)
    try:
        return shutil.disk_usage(existing).free if existing else 0
    except OSError:
        return 0


def machine_error(error: OSError, path: Path, needed_bytes: int = 0) -> MachineError:
    """Build the one line for a failed system call.

    Args:
        error: What the system said.
        path: What the user knows: the final path, not a temporary one.
        needed_bytes: Size of what was being written; 0 if unknown.
    """
    number = error.errno or 0
    found = (error.strerror or str(error) or type(error).__name__).lower()
    if number in _FULL:
        needed = f"{readable_bytes(needed_bytes)} needed, " if needed_bytes else ""
        found = f"{found}: {needed}{readable_bytes(free_bytes(path))} free"
    return MachineError(found, where=str(path), cure=_CURES.get(number, ""))


@contextmanager
def disk_errors(path: Path, *, needed_bytes: int = 0) -> Iterator[None]:
    """Turn any ``OSError`` of the block into a ``MachineError`` about ``path``.

    Raises:
        MachineError: The system refused something.
    """
    try:
        yield
    except OSError as error:
        raise machine_error(error, path, needed_bytes) from error


def require_free(path: Path, needed_bytes: int) -> None:
    """Stop before writing what can't fit.

    Raises:
        MachineError: Fewer than ``needed_bytes`` are free.
    """
    if 0 < needed_bytes > free_bytes(path):
        raise machine_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path, needed_bytes)


def sync_file(path: Path) -> None:
    """Force a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Force a directory's names to the disk; without it a rename can be lost with the power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def umask() -> int:
    """The process's umask; the system only tells it when it is set, so set it and put it back."""
    current = os.umask(0o077)
    os.umask(current)
    return current
