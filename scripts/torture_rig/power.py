"""A model of a power cut: whatever was not forced to the disk is lost, garbled, or has its old name.

The model is POSIX at its strictest (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014): a
file has the content of its last fsync, a folder the names of its last fsync. A child keeps that record for
its run directory and its cache; where a failpoint would kill it, it first makes the disk look like that.
"""

import hashlib
import os
import random
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lora_kit.artifacts.commit import FAILPOINTS
from torture_rig.kills import KILLED, ONCE
from torture_rig.processes import train
from torture_rig.trials import Rig, Trial, Verdict

Loss = Literal["contents lost", "contents garbled", "names lost"]
LOSSES: tuple[Loss, ...] = ("contents lost", "contents garbled", "names lost")


@dataclass(slots=True)
class Disk:
    """What would survive a power cut.

    Args:
        root: Everything below it is watched.
        contents: Size and hash of each file at its last fsync, by inode.
        names: What each folder named at its last fsync, by inode: name to inode, and a spare copy of what was
            under that name, for it may be replaced.
        spare: Where hard links keep replaced files alive.
    """

    root: Path
    spare: Path
    contents: dict[int, tuple[int, str]] = field(default_factory=dict)
    names: dict[int, dict[str, Path]] = field(default_factory=dict)

    def synced(self, path: Path) -> None:
        """A file or folder was forced to the disk."""
        inode = path.stat().st_ino
        if path.is_dir():
            self.names[inode] = {entry.name: self._keep(entry) for entry in path.iterdir()}
        else:
            content = path.read_bytes()
            self.contents[inode] = len(content), _hash(content)

    def _keep(self, entry: Path) -> Path:
        """A hard link to a file, or the folder itself; folders are never replaced in place."""
        if entry.is_dir() or not entry.is_file():
            return entry
        kept = self.spare / str(entry.stat().st_ino)
        if not kept.exists():
            os.link(entry, kept)
        return kept

    def lose(self, loss: Loss) -> None:
        """Make the folder look as it would after the cut."""
        for file in [path for path in self.root.rglob("*") if path.is_file()]:
            self._old_content(file, loss)
        if loss == "names lost":
            for folder in [path for path in self.root.rglob("*") if path.is_dir()]:
                if folder.exists():
                    self._old_names(folder)

    def _old_content(self, file: Path, loss: Loss) -> None:
        """Cut what was appended since the last fsync, or all of a file that was not only appended to."""
        content = file.read_bytes()
        size, digest = self.contents.get(file.stat().st_ino, (0, _hash(b"")))
        kept = size if _hash(content[:size]) == digest else 0
        if kept < len(content):
            lost = len(content) - kept
            rest = random.Random(7).randbytes(lost) if loss == "contents garbled" else b""
            file.write_bytes(content[:kept] + rest)

    def _old_names(self, folder: Path) -> None:
        before = self.names.get(folder.stat().st_ino, {})
        for entry in list(folder.iterdir()):
            if entry.name not in before:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for name, kept in before.items():
            if kept.parent == self.spare:
                (folder / name).unlink(missing_ok=True)
                os.link(kept, folder / name)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def watch(root: Path, loss: Loss) -> None:
    """In a child: keep the record, and lose what it does not have before dying."""
    spare = root.with_name(f"{root.name}.spare")
    spare.mkdir()
    disk = Disk(root, spare)
    true_fsync, true_kill = os.fsync, os.kill

    def fsync(descriptor: int) -> None:
        true_fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_relative_to(root) and path.exists():
            disk.synced(path)

    def kill(pid: int, number: int) -> None:
        if number == signal.SIGKILL:
            disk.lose(loss)
        true_kill(pid, number)

    os.fsync, os.kill = fsync, kill


def cuts(rig: Rig, turns: tuple[int, ...], losses: tuple[Loss, ...] = LOSSES) -> list[Trial]:
    """Cut the power at each failpoint."""
    points = [point for point in FAILPOINTS if point != "directory.after_old"]
    return [
        Trial("power cut", f"power, {point}, {turn}, {loss}", lambda at=(point, turn, loss): _cut(rig, *at))
        for point in points
        for turn in ((1,) if point in ONCE else turns)
        for loss in losses
    ]


def _cut(rig: Rig, point: str, turn: int, loss: Loss) -> Verdict:
    root = rig.work / f"power-{point}-{turn}-{loss.replace(' ', '-')}"
    root.mkdir()
    path, folder = rig.recipes["short"], root / "run"
    environment = {"LORA_KIT_CACHE": str(root / "cache")}
    failpoint = f"{point}@{turn}=kill"
    code = train(path, folder, lambda: watch(root, loss), LORA_KIT_FAILPOINT=failpoint, **environment).code
    if code != KILLED:
        return Verdict("wrong", f"exit {code}: it never got there")
    return rig.judge("short", folder, train(path, folder, **environment), kills=1)
