"""The one atomic writer: whatever a run leaves on disk is complete or absent.

Content first goes to a temporary name beside its target, is forced to the disk, and
one rename commits it; a directory also gets a manifest of hashes, written last. Names
that begin with ``.tmp-``, ``.old-`` or ``.trash-`` are nobody's: ``sweep`` clears them
under the run's lock. ``failpoint`` marks each moment at which a test ends the process.
"""

import errno
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_kit.artifacts.disk import disk_errors, require_free, sync_directory, sync_file
from lora_kit.artifacts.manifest import FORMAT_VERSION, MANIFEST, describe_files, seal

FAILPOINTS = (
    "file.after_write",  # the temporary file is complete, the target untouched
    "file.after_rename",
    "directory.before_manifest",
    "directory.after_manifest",
    "directory.after_old",  # the replaced directory is aside, the new one not yet in place
    "directory.after_rename",
    "checkpoint.after_adapter",
    "checkpoint.after_optimizer",
    "checkpoint.after_state",
    "checkpoint.after_commit",  # committed, not yet verified
    "checkpoint.after_verify",
    "discard.after_trash",  # out of sight, not yet deleted
    "adapter.after_weights",
    "metrics.before_line",
    "metrics.after_line",
    "metrics.after_sync",
    "metrics.after_truncate",
    "run.after_create",  # an empty directory that is not a run yet
    "run.before_owner",  # locked, the owner's name not yet written
)
_VARIABLE = "LORA_KIT_FAILPOINT"
_reached: Counter[tuple[str, str]] = Counter()


def failpoint(name: str) -> None:
    """Do here what the environment variable LORA_KIT_FAILPOINT asks for, by default nothing.

    Its value is ``name=action``, or several with commas. Actions: ``kill`` (SIGKILL), ``raise`` (a bug),
    ``sleep`` or ``sleep:SECONDS``, or the name of a system error such as ``enospc``. ``name@3=kill`` acts
    the third time.

    Raises:
        AssertionError: The name is not in FAILPOINTS.
        RuntimeError: Asked for by ``raise``.
        OSError: Asked for by name.
    """
    assert name in FAILPOINTS, f"failpoint {name!r} is not declared"
    wanted = os.environ.get(_VARIABLE)
    if not wanted:
        return
    _reached[wanted, name] += 1
    for entry in wanted.split(","):
        point, _, action = entry.strip().partition("=")
        point, _, turn = point.partition("@")
        assert point in FAILPOINTS, f"{_VARIABLE}: {point!r} is not a failpoint"
        if point == name and int(turn or _reached[wanted, name]) == _reached[wanted, name]:
            _act(name, action)


def _act(name: str, action: str) -> None:
    verb, _, seconds = action.partition(":")
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "sleep":
        time.sleep(float(seconds or 1))
    elif verb == "raise":
        raise RuntimeError(f"failpoint {name}")
    else:
        number = getattr(errno, verb.upper())
        raise OSError(number, os.strerror(number))


def _beside(target: Path, prefix: str) -> Path:
    return target.with_name(f".{prefix}-{target.name}-{os.getpid()}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write or replace one file; readers see the old content or the new, never a part.

    The parent directory must exist. The mode follows the umask.

    Raises:
        MachineError: Disk full, read-only, or gone; an existing file keeps its content.
    """
    temporary = _beside(path, "tmp")
    with disk_errors(path, needed_bytes=len(data)):
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            failpoint("file.after_write")
            temporary.replace(path)
        except BaseException:
            _remove(temporary)
            raise
        failpoint("file.after_rename")
        sync_directory(path.parent)


def json_bytes(value: object) -> bytes:
    """UTF-8 JSON for people and diffs: indented, keys in the given order, strict (no NaN)."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    # A lone surrogate (an undecodable file name) only occurs inside strings, where this escape is JSON's own.
    return text.encode("utf-8", "backslashreplace")


def write_json(path: Path, value: object) -> None:
    """``write_file`` of ``json_bytes``.

    Raises:
        MachineError: Disk full, read-only, or gone; an existing file keeps its content.
        ValueError: The value holds NaN or infinity.
    """
    write_file(path, json_bytes(value))


@contextmanager
def committed_dir(
    target: Path,
    *,
    identity: Mapping[str, Any] | None = None,
    manifest: bool = True,
    needed_bytes: int = 0,
) -> Iterator[Path]:
    """Fill a temporary directory in the block; one rename makes it ``target``, or nothing does.

    Args:
        target: An existing directory is replaced, and is put back if anything fails.
        identity: JSON that goes into the manifest: what the content belongs to.
        manifest: Write ``manifest.json``, without which ``verify_dir`` refuses the directory.
        needed_bytes: Estimate of what the block writes, checked before it starts; 0 checks nothing.

    Yields:
        The empty directory to write into, on the same file system as ``target``.

    Raises:
        MachineError: Disk full, read-only, or the parent is gone; the target is as it was before.
    """
    target = target.absolute()
    temporary = _beside(target, "tmp")
    with disk_errors(target, needed_bytes=needed_bytes):
        require_free(target, needed_bytes)
        _remove(temporary)
        try:
            temporary.mkdir()
            yield temporary
            _make_durable(temporary, dict(identity or {}) if manifest else None)
            _put_in_place(temporary, target)
        except BaseException:
            _remove(temporary)
            raise


def _make_durable(folder: Path, identity: dict[str, Any] | None) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_directory(path)
        else:
            sync_file(path)
    failpoint("directory.before_manifest")
    if identity is not None:
        body = {"format_version": FORMAT_VERSION, "identity": identity, "files": describe_files(folder)}
        write_json(folder / MANIFEST, seal(body))
    failpoint("directory.after_manifest")
    sync_directory(folder)


def _put_in_place(temporary: Path, target: Path) -> None:
    old = _beside(target, "old")
    try:
        if target.exists():
            _remove(old)
            target.rename(old)
            failpoint("directory.after_old")
        temporary.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    failpoint("directory.after_rename")
    sync_directory(target.parent)
    _remove(old)


def discard(path: Path) -> None:
    """Delete a directory so that no reader, and no run after a kill, meets half of it.

    Raises:
        MachineError: The file system refuses.
    """
    trash = _beside(path.absolute(), "trash")
    with disk_errors(path):
        _remove(trash)
        path.rename(trash)
        failpoint("discard.after_trash")
        sync_directory(trash.parent)
        _remove(trash)


def sweep(parent: Path) -> None:
    """Clear what a killed process left in ``parent``. Only under the run's lock.

    A directory that was set aside to be replaced goes back if its replacement never arrived.
    """
    if not parent.is_dir():
        return
    for old in parent.glob(".old-*"):
        name = old.name.removeprefix(".old-").rpartition("-")[0]
        if not (parent / name).exists():
            old.rename(parent / name)
    for prefix in (".old-*", ".tmp-*", ".trash-*"):
        for leftover in parent.glob(prefix):
            _remove(leftover)
