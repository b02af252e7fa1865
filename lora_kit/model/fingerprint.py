"""A base model's fingerprint: which architecture, which numbers; not in which files.

peft loads an adapter onto any base whose shapes fit, without a word. The fingerprint covers the
architecture's config keys and, for every tensor, its name, type, shape and bytes, so a fine-tuned sibling,
another rounding or a permuted layer is another base, and resharding is not.
"""

import json
from hashlib import sha256
from pathlib import Path

from lora_kit.errors import ModelError
from lora_kit.model.cache import remembered
from lora_kit.model.family import TOKEN_KEYS
from lora_kit.model.folder import ModelFolder

CHUNK_BYTES = 1 << 22


def fingerprint(model: ModelFolder, *, cache: Path) -> str:
    """Return 64 hex digits; quick when the files have been seen before.

    Raises:
        ModelError: A file of the hub's cache does not have the content that its name promises.
    """

    def compute() -> str:
        for shard in model.shards:
            _check_blob(shard)
        tensors = [
            [name, entry.dtype, entry.shape, hash_bytes(model.folder / shard, entry.start, entry.end)]
            for name, (shard, entry) in sorted(model.tensors.items())
        ]
        return _digest(tensors)

    weights = remembered(model.shards, "tensors-1", compute, cache=cache)
    keys = model.family.config_keys - TOKEN_KEYS
    architecture = {key: value for key, value in model.config.items() if key in keys and value is not None}
    return _digest([model.family.name, architecture, weights])


def file_sha256(path: Path, *, cache: Path) -> str:
    """Return the sha256 of a whole file, 64 hex digits; quick when the file has been seen before."""
    return remembered((path,), "file-1", lambda: hash_bytes(path, 0, path.stat().st_size), cache=cache)


def hash_bytes(path: Path, start: int, end: int) -> str:
    """Return the sha256 of a part of a file, 64 hex digits."""
    digest = sha256()
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (piece := file.read(min(CHUNK_BYTES, end - start))):
            digest.update(piece)
            start += len(piece)
    return digest.hexdigest()


def _digest(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _check_blob(shard: Path) -> None:
    """In the hub's cache a large file is named by its own sha256, which huggingface_hub does not check."""
    blob = shard.resolve()
    if blob.parent.name != "blobs" or len(blob.name) != 64:
        return
    if hash_bytes(blob, 0, blob.stat().st_size) != blob.name:
        raise ModelError(
            f"the download of {shard.name} is damaged",
            where=str(blob),
            cure="delete the file and fetch it again",
        )
