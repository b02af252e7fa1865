"""A disk that is full from the n-th write on, files that may not grow, folders that may not be written."""

import errno
import os
import resource
import signal
import sys
from pathlib import Path

from torture_rig.processes import Change, train
from torture_rig.trials import Rig, Trial, Verdict, damaged_checkpoints

NOBODY = 65534
SIZES = (10, 100, 300, 1000, 3000, 6000, 10_000, 20_000, 40_000)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def full_from(root: Path, first: int, count_in: Path) -> None:
    """In a child: every write below ``root`` fails from the ``first`` on; deleting still works.

    A write is whatever takes room: opening a file to write, a folder, a rename, and data (where they are
    written, and where they are forced to the disk, which is when a delayed allocation fails).

    Args:
        root: The run directory.
        first: From which write on; the writes are counted from 1.
        count_in: A file that grows by a byte for each write.
    """
    true_fsync, true_write = os.fsync, os.write
    counter = os.open(count_in, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writes = [0]

    def count(path: object) -> None:
        if not isinstance(path, str | os.PathLike) or not Path(path).is_relative_to(root):
            return
        writes[0] += 1
        true_write(counter, b".")
        if writes[0] >= first:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if opened or event in ("os.mkdir", "os.rename"):
            count(arguments[0])

    def fsync(descriptor: int) -> None:
        count(Path(f"/proc/self/fd/{descriptor}").readlink())
        true_fsync(descriptor)

    def write(descriptor: int, data: bytes) -> int:
        count(Path(f"/proc/self/fd/{descriptor}").readlink())
        return true_write(descriptor, data)

    os.fsync, os.write = fsync, write
    sys.addaudithook(hook)


def full_disks(rig: Rig, every: int) -> list[Trial]:
    """Fill the disk at each write (or at every so many) of a run of three steps; limit the size of files."""
    folder, counter = rig.work / "writes", rig.work / "writes.count"
    assert train(rig.recipes["short"], folder, lambda: full_from(folder, 10**9, counter)).code == 0
    count = counter.stat().st_size
    trials = [
        Trial("disk full", f"full-from-{n}", lambda n=n: _full(rig, n)) for n in range(1, count + 1, every)
    ]
    return trials + [
        Trial("disk full", f"files-of-{n}", lambda n=n: _small_files(rig, n)) for n in SIZES[::every]
    ]


def _full(rig: Rig, first: int) -> Verdict:
    folder, counter = rig.work / f"full-{first}", rig.work / f"full-{first}.count"
    return _refused_then_well(rig, folder, lambda: full_from(folder, first, counter))


def _small_files(rig: Rig, most: int) -> Verdict:
    """No file may grow beyond a size: a refusal by the system itself, in the middle of a file."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return _refused_then_well(rig, rig.work / f"files-of-{most}", limit, is_heard=most > 1000)


def _refused_then_well(rig: Rig, folder: Path, change: Change, *, is_heard: bool = True) -> Verdict:
    recipe = rig.recipes["short"]
    outcome = train(recipe, folder, change)
    if outcome.code not in (0, 5):
        return Verdict("wrong", f"exit {outcome.code}: {outcome.said[-600:]}")
    if outcome.code == 5 and is_heard and (refusal := rig.refusal(outcome)).ended != "refused":
        return refusal
    if problems := damaged_checkpoints(folder):
        return Verdict("wrong", f"left {problems}")
    return rig.judge("short", folder, train(recipe, folder))


def read_only(rig: Rig) -> list[Trial]:
    """Folders that can't be written: above the run, the run itself, its checkpoints in the middle of it."""
    return [
        Trial("read-only folder", f"read-only-{what}", lambda what=what: _read_only(rig, what))
        for what in WHERE
    ]


WHERE = {"parent": "", "run": "run", "checkpoints": "run/checkpoints"}


def _read_only(rig: Rig, what: str) -> Verdict:
    recipe, parent = rig.recipes["dropout"], rig.work / f"read-only-{what}"
    folder, closed = parent / "run", parent / WHERE[what]
    cache = rig.work / f"read-only-{what}.cache"
    cache.mkdir()
    environment = {"LORA_KIT_CACHE": str(cache)}
    parent.mkdir()
    if what != "parent":
        train(recipe, folder, LORA_KIT_FAILPOINT="checkpoint.after_verify@3=kill", **environment)
    for path in (parent, *parent.rglob("*"), cache, *cache.rglob("*")):
        os.chown(path, NOBODY if os.geteuid() == 0 else -1, -1)
    closed.chmod(0o500)
    outcome = train(recipe, folder, _lose_rights, **environment)
    closed.chmod(0o700)
    if outcome.code != 5:
        return Verdict("wrong", f"exit {outcome.code}: {outcome.said[-600:]}")
    if (refusal := rig.refusal(outcome)).ended != "refused":
        return refusal
    return rig.judge("dropout", folder, train(recipe, folder, **environment))


def _lose_rights() -> None:
    """In a child: become somebody to whom modes apply."""
    if os.geteuid() == 0:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
