"""Encoded rows are kept between runs, under a name that says all that they depend on.

The name is a hash over the content of the rows' files, the recipe's data section, the encoder and this
very code; so an entry is either right or not found. It carries hashes of itself: a damaged one is made anew.
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from lora_kit.cache_place import cache_dir, locked
from lora_kit.data.row_file import Blocks
from lora_kit.errors import MachineError
from lora_kit.recipe.schema import DataSpec

ROWS, ENTRY = "rows.arrow", "entry.json"
KEPT_BYTES = 20 << 30
_SMALL_BYTES = 1 << 20
# Raise it when the layout of an entry changes.
_VERSION = 1
_LIBRARIES = ("datasets", "jinja2", "numpy", "pyarrow", "tokenizers", "transformers")

Notes = dict[str, Any]
Fill = Callable[[Path], Notes]


def encoded_dir() -> Path:
    """Return where encoded rows are kept: ``$LORA_KIT_CACHE/encoded`` or ``~/.cache/lora_kit/encoded``."""
    return cache_dir() / "encoded"


def entry_key(spec: DataSpec, encoder_fingerprint: str, sources: Sequence[Mapping[str, str]]) -> str:
    """Name what preparing rows gives, 64 hex digits.

    Args:
        spec: The recipe's data section.
        encoder_fingerprint: Tokenizer, template and system prompt.
        sources: Everything that is read, each with the sha256 of its content.
    """
    identity = {
        "code": _code(),
        "data": spec.model_dump(mode="json"),
        "encoder": encoder_fingerprint,
        "sources": [dict(source) for source in sources],
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def kept(key: str, fill: Fill, *, folder: Path) -> tuple[Blocks, Notes, bool]:
    """Return an entry, after making it if there is none or if it is damaged.

    A second process that wants the same entry waits for the first. Where the folder can't be written, the
    entry is made in a temporary place and lives as long as it is mapped.

    Args:
        key: The entry's name.
        fill: Writes `ROWS` into the empty folder that it is given; returns what else to remember, as JSON.
        folder: Where entries are.

    Returns:
        The rows, what `fill` returned, and whether it was called now.

    Raises:
        MachineError: The disk is full or fails.
    """
    target = folder / key
    if found := _open(target):
        return *found, False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        with tempfile.TemporaryDirectory(prefix="lora-kit-") as place:
            return _filled(Path(place), fill)
    with locked(_lock_of(target)):
        if found := _open(target):
            return *found, False
        unfinished = target.with_name(f".tmp-{key}")
        try:
            _remove(unfinished)
            unfinished.mkdir()
            made = _filled(unfinished, fill)
            _remove(target)
            unfinished.rename(target)
        except OSError as error:
            raise _full(target, error) from error
        finally:
            _remove(unfinished)
    if _size(target) > _SMALL_BYTES or key.startswith(
        "0"
    ):  # one small entry in 16, for it looks at all of them
        sweep(folder, keep=key)
    return made


def sweep(folder: Path, *, keep: str = "", limit_bytes: int = KEPT_BYTES) -> None:
    """Delete what killed processes left, and the entries unused for longest while all are above a limit.

    Args:
        folder: Where entries are.
        keep: An entry to keep in any case.
        limit_bytes: Bytes of all entries together.
    """
    ages = []
    for entry in folder.iterdir():
        name = entry.name.removeprefix(".tmp-")
        if entry.is_dir() and name != keep:
            with suppress(OSError):
                ages.append((0 if name != entry.name else (entry / ENTRY).stat().st_mtime_ns, name, entry))
    total = sum(_size(entry) for *_, entry in ages) + (_size(folder / keep) if keep else 0)
    for age, name, entry in sorted(ages):
        if age and total <= limit_bytes:
            break
        with locked(_lock_of(folder / name), wait=False) as free:
            if free:
                total -= _size(entry)
                _remove(entry)


def _filled(place: Path, fill: Fill) -> tuple[Blocks, Notes, bool]:
    try:
        body = {"notes": fill(place), "rows": _description(place / ROWS)}
        text = json.dumps({"body": body, "sha256": _hash_of(body)}, ensure_ascii=True)
        (place / ENTRY).write_text(text, "ascii")
        # Nothing is synced: what a power cut leaves does not match its hashes. What is returned is read
        # back, so that it is the same now and later.
        return Blocks.open(place / ROWS), json.loads(text)["body"]["notes"], True
    except OSError as error:
        raise _full(place, error) from error


def _open(entry: Path) -> tuple[Blocks, Notes] | None:
    """Return what is in an entry if it is there and whole."""
    try:
        sealed = json.loads((entry / ENTRY).read_text("ascii"))
        body = sealed["body"]
        if sealed["sha256"] != _hash_of(body) or body["rows"] != _description(entry / ROWS):
            return None
        found = Blocks.open(entry / ROWS), dict(body["notes"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    with suppress(OSError):
        os.utime(entry / ENTRY)
    return found


def _description(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _hash_of(body: object) -> str:
    return hashlib.sha256(json.dumps(body, ensure_ascii=True).encode()).hexdigest()


@cache
def _code() -> list[str]:
    """What prepares rows: this package's sources, and the libraries and tables that they rest on."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(
            f"{path.relative_to(package)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    libraries = [f"{name} {version(name)}" for name in _LIBRARIES]
    python = f"python {platform.python_version()} unicode {unicodedata.unidata_version}"
    return [f"version {_VERSION}", digest.hexdigest(), python, *libraries]


def _lock_of(target: Path) -> Path:
    """Shared by entries whose names begin alike: so there are never more than 256 of these files."""
    return target.parent / f".lock-{target.name[:2]}"


def _size(entry: Path) -> int:
    with suppress(OSError):
        return sum(path.stat().st_size for path in entry.iterdir())
    return 0


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _full(place: Path, error: OSError) -> MachineError:
    return MachineError(
        f"encoded rows can't be written: {error}", where=str(place), cure="free space or set LORA_KIT_CACHE"
    )
