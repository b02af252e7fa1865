"""What the frozen trunk gives for each row, kept on disk between epochs and runs.

One file a row: a sha256, then the states as they are in memory. The folder's name is a hash over all that the
states depend on (base, number types, layers, libraries, threads, this very code), the file's over the row's
ids, and the sha256 covers both names and the content. So a stale or swapped file can't be used, and a
damaged or unfinished one is computed again; nothing needs to be synced. A file appears by one rename, and two
processes that want the same row write the same bits.
"""

import fcntl
import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lora_kit.cache_place import cache_dir, locked
from lora_kit.errors import MachineError
from lora_kit.model.batch import TokenBatch
from lora_kit.model.branch_attention import paths_of
from lora_kit.model.trunk import KEY, Entering, Trunk

KEPT_BYTES = 20 << 30  # of entries that no run has open
HEAD_BYTES = 32
_LOCK = ".lock"
CURE = f"free space, point LORA_KIT_CACHE at another disk, or set {KEY} to off"


class TrunkCache:
    """Rows' states, from the disk or else computed and put there.

    Args:
        trunk: The frozen layers.
        folder: Of this trunk alone.
    """

    def __init__(self, trunk: Trunk, folder: Path) -> None:
        self.trunk = trunk
        self.folder = folder

    @property
    def token_bytes(self) -> int:
        """Bytes that one token takes."""
        return self.trunk.width * self.trunk.dtype.itemsize

    def stored_bytes(self) -> int:
        """Bytes that are there already."""
        return _size(self.folder)

    def hold(self) -> None:
        """Make the folder, clear what killed processes left, and keep others from deleting it meanwhile.

        Raises:
            MachineError: The cache can't be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / _LOCK, wait=False) as alone:
                for unfinished in self.folder.glob("*/.tmp-*") if alone else ():
                    unfinished.unlink(missing_ok=True)
            lock = os.open(self.folder / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
            weakref.finalize(self, os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError as error:
            raise _refused(self.folder, error) from error

    def entering(self, batch: TokenBatch) -> Entering:
        """Gather the states of a micro-batch.

        Raises:
            MachineError: The disk is full or fails.
        """
        ids = batch.input_ids.flatten()
        states = torch.zeros(len(ids), self.trunk.width, dtype=self.trunk.dtype, device=ids.device)
        for path in row_places(batch):
            row = self._row(torch.cat([ids[part] for part in path])).to(ids.device)
            done = 0
            for part in path:
                states[part] = row[done : (done := done + part.stop - part.start)]
        shape = (*batch.input_ids.shape, self.trunk.width)
        return Entering(self.trunk.depth, states.view(shape), self.trunk.pairs)

    def _row(self, ids: Tensor) -> Tensor:
        name = hashlib.sha256(ids.cpu().numpy().tobytes()).hexdigest()
        place = self.folder / name[:2] / name
        found = _read(place, self._seal(name), (len(ids), self.trunk.width), self.trunk.dtype)
        if found is None:
            found = self.trunk.row_states(ids).to("cpu").contiguous()
            assert found.dtype == self.trunk.dtype
            _write(place, self._seal(name), found)
        return found

    def _seal(self, name: str) -> bytes:
        return f"{self.folder.name} {name} ".encode()


def trunk_cache(trunk: Trunk, identity: Mapping[str, object]) -> TrunkCache:
    """Name the place of a trunk's states; nothing is made yet.

    Args:
        trunk: The frozen layers.
        identity: What a state depends on besides: base, quantization, libraries, threads, hardware. JSON.
    """
    body = {
        "identity": dict(identity),
        "depth": trunk.depth,
        "dtype": str(trunk.dtype),
        "device": trunk.base.device.type,
        "code": _code(),
    }
    key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return TrunkCache(trunk, cache_dir() / "trunk" / key)


def row_places(batch: TokenBatch) -> Iterator[tuple[slice, ...]]:
    """Yield where the tokens of each row lie in the B x T positions, in order.

    In a trie these are the paths to its leaves: a row that another one begins with is met in that one.
    """
    if not batch.segments:
        width = batch.input_ids.shape[1]
        yield from ((slice(row * width, row * width + n),) for row, n in enumerate(batch.lengths))
        return
    paths, continued = paths_of(batch.segments, batch.parents), set(batch.parents)
    yield from (path for number, path in enumerate(paths) if number not in continued)


def sweep(keep: Path, *, limit_bytes: int = KEPT_BYTES) -> None:
    """Delete the oldest trunks beside ``keep`` until the others fit; none that a process holds."""
    others = sorted((_age(folder), folder) for folder in keep.parent.glob("*") if folder != keep)
    total = sum(_size(folder) for _, folder in others)
    for _, folder in others:
        if total <= limit_bytes:
            return
        with suppress(OSError), locked(folder / _LOCK, wait=False) as free:
            if free:
                total -= _size(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _read(place: Path, seal: bytes, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    try:
        content = bytearray(place.read_bytes())
    except OSError:
        return None
    body = memoryview(content)[HEAD_BYTES:]
    if len(body) != shape[0] * shape[1] * dtype.itemsize or content[:HEAD_BYTES] != _digest(seal, body):
        return None
    return torch.frombuffer(content, dtype=dtype, offset=HEAD_BYTES).view(*shape)


def _write(place: Path, seal: bytes, states: Tensor) -> None:
    body = states.view(torch.uint8).numpy().data.cast("B")
    unfinished = place.with_name(f".tmp-{place.name}-{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as stream:
            stream.write(_digest(seal, body))
            stream.write(body)
        unfinished.replace(place)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise _refused(place.parents[1], error) from error


def _digest(seal: bytes, body: memoryview) -> bytes:
    digest = hashlib.sha256(seal)
    digest.update(body)
    return digest.digest()


def _refused(folder: Path, error: OSError) -> MachineError:
    return MachineError(
        f"the trunk's states can't be written: {error.strerror or error}",
        where=str(folder),
        key=KEY,
        cure=CURE,
    )


def _age(folder: Path) -> int:
    """When a process last opened it."""
    with suppress(OSError):
        return (folder / _LOCK).stat().st_mtime_ns
    return 0


def _size(folder: Path) -> int:
    total = 0
    for path in folder.glob("*/*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total


@cache
def _code() -> str:
    """The sources of this package, whose change may change a bit."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
