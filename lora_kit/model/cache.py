"""How converted bases and their hashes get into the cache: whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lora_kit.cache_place import locked
from lora_kit.errors import MachineError


def build_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """Return ``target``, after filling it if it does not exist; it appears complete, by one rename.

    A second process that wants the same folder waits for the first. What a killed one left behind is removed.

    Args:
        target: The folder.
        fill: Writes the content into the empty folder that it is given.

    Raises:
        MachineError: The cache can't be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f"{target.name}.lock")):
            if not target.is_dir():
                _filled(target.with_name(f".tmp-{target.name}"), fill).rename(target)
                _sync_path(target.parent)
    except OSError as error:
        raise MachineError(
            f"the cache can't be written: {error}", where=str(target), cure="free space or set LORA_KIT_CACHE"
        ) from error
    return target


def _filled(unfinished: Path, fill: Callable[[Path], None]) -> Path:
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        fill(unfinished)
        _sync(unfinished)
    except BaseException:  # a disk that is full has no room for half a model
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return unfinished


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        _sync_path(path)
    _sync_path(folder)


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remembered(files: tuple[Path, ...], purpose: str, compute: Callable[[], str], *, cache: Path) -> str:
    """Return ``compute()``, or what it was when the files were last seen with the same size, time and inode.

    Args:
        files: What the result depends on.
        purpose: Distinguishes results about the same files; change it when ``compute`` changes.
        compute: The slow computation.
        cache: The cache folder; a cache that can't be written only costs time.
    """
    place = cache / "hashes.json"
    key = json.dumps([purpose, [_identity(path) for path in files]])
    known = _read(place)
    if key not in known:
        result = compute()
        _write(place, {**_read(place), key: result})
        return result
    return known[key]


def _identity(path: Path) -> list[str | int]:
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]


def _read(place: Path) -> dict[str, str]:
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(place: Path, known: dict[str, str]) -> None:
    unfinished = place.with_name(f".tmp-{place.name}-{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(dict(list(known.items())[-500:]), indent=1), encoding="utf-8")
        unfinished.replace(place)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
