"""Content hashes: a directory is valid if its manifest is, and says so of every file.

The safetensors format checks its header and nothing of its data, and a directory's
name proves nothing after a power cut, so every file is hashed. The manifest itself is
sealed with a hash of its own content: a flipped bit in a fingerprint must not look
like another recipe.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lora_kit.errors import MachineError, ModelError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
_SEAL = "sha256"


def file_sha256(path: Path) -> str:
    """Hash a file's content.

    Returns:
        64 hex digits.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(document: Mapping[str, Any]) -> str:
    content = {key: value for key, value in document.items() if key != _SEAL}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with a ``sha256`` of its own content as last key.

    Example:
        >>> sealed = seal({"step": 3})
        >>> is_sealed(sealed), is_sealed({**sealed, "step": 4})
        (True, False)
    """
    return {**document, _SEAL: _digest(document)}


def is_sealed(document: Mapping[str, Any]) -> bool:
    """Whether the document is as it was sealed."""
    return document.get(_SEAL) == _digest(document)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: The file is missing, not JSON, or not an object.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        found = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read: {error.strerror}"
        raise ModelError(found, where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise ModelError("is not JSON (damaged or cut)", where=str(path)) from error
    if not isinstance(document, dict):
        raise ModelError("is not a JSON object", where=str(path))
    return document


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON object that was sealed when it was written.

    Raises:
        ModelError: Missing, not JSON, or changed since it was written.
        MachineError: Intact, but written by a version of lora_kit with another format.
    """
    document = read_object(path)
    if not is_sealed(document):
        raise ModelError("was changed after it was written (its own sha256 differs)", where=str(path))
    version = document.get("format_version")
    if version != FORMAT_VERSION:
        raise MachineError(
            f"has format {version}, this lora_kit reads format {FORMAT_VERSION}",
            where=str(path),
            cure="use the version of lora_kit that wrote it",
        )
    return document


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash every file below ``folder``.

    Returns:
        ``{"sub/name": {"sha256": ..., "bytes": ...}}`` in the order of names.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for path in files
    }


def _file_problem(folder: Path, name: str, sha256: str) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return "its name leaves the directory"
    path = folder / name
    if not path.is_file():  # also of FIFOs and devices, whose opening could block for ever
        return "is not a regular file" if path.exists() else "is missing"
    try:
        return "" if file_sha256(path) == sha256 else "sha256 differs"
    except OSError as error:
        return f"can't be read: {error.strerror}"


def verify_files(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Compare files with their recorded sha256.

    Returns:
        One ``"name: what is wrong"`` for each file that differs; empty when all is well.
    """
    found = ((name, _file_problem(folder, name, sha256)) for name, sha256 in hashes.items())
    return [f"{name}: {problem}" for name, problem in found if problem]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a committed directory's manifest: ``format_version``, ``identity``, ``files``.

    Raises:
        ModelError: Missing, damaged, or changed.
        MachineError: Written by a version of lora_kit with another format.
    """
    return read_sealed(folder / MANIFEST)


def verify_dir(folder: Path) -> list[str]:
    """Check a committed directory against its manifest.

    Returns:
        What is wrong, one line each; empty when the directory is exactly what was committed
        (files that the manifest does not name are never read, so they don't count).

    Raises:
        MachineError: Written by a version of lora_kit with another format.
    """
    try:
        manifest = read_manifest(folder)
    except ModelError as error:
        return [f"{MANIFEST}: {problem.found}" for problem in error.problems]
    return verify_files(folder, {name: entry["sha256"] for name, entry in manifest["files"].items()})
