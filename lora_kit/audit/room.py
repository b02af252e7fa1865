"""Will it fit, and does saving work? A checkpoint of the true size is written, read back and deleted.

Tests of the last hour in the first minute: a disk that is full, a quota, a network folder that forgets.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from lora_kit.artifacts.commit import committed_dir, discard
from lora_kit.artifacts.disk import free_bytes, readable_bytes
from lora_kit.artifacts.manifest import verify_dir
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.audit.findings import Finding
from lora_kit.errors import MachineError

SAVING, ROOM = "dry save", "disk and memory"
# A name that is nobody's: whatever a kill leaves of it is swept when the run is opened again.
PLACE = ".trash-dry-save"
PIECE = 1 << 20
CURE = "free some space, or choose a --run-dir on another disk"


@dataclass(frozen=True, slots=True)
class Need:
    """What the run will take.

    Args:
        checkpoint: Bytes of one checkpoint.
        checkpoints: How many are on disk at once, at most.
        merged: Bytes of base and adapter as one model.
        memory: Bytes that training takes beyond what is in memory now, at most; 0 if unknown.
        memory_free: Bytes that are free.
    """

    checkpoint: int
    checkpoints: int
    merged: int
    memory: int
    memory_free: int


def check_saving(run: RunDir, need: Need) -> Finding:
    """Commit as much as a checkpoint, read it back, delete it."""
    folder = run.checkpoints / PLACE
    began = time.perf_counter()
    try:
        with committed_dir(folder, needed_bytes=need.checkpoint) as part:
            _write(part / "bytes", need.checkpoint)
        problems = verify_dir(folder)
        discard(folder)
    except MachineError as error:
        problem = error.problems[0]
        return Finding(SAVING, problem.found, "failed", cure=problem.cure, error=MachineError)
    size = readable_bytes(need.checkpoint)
    if problems:
        found = f"{size} read back otherwise than written"
        return Finding(SAVING, found, "failed", cure="choose a --run-dir on another disk", error=MachineError)
    return Finding(SAVING, f"{size} written, read back and deleted in {time.perf_counter() - began:.1f} s")


def _write(path: Path, count: int) -> None:
    piece = os.urandom(PIECE)  # no file system makes less of it
    with path.open("wb") as stream:
        for start in range(0, count, PIECE):
            stream.write(piece[: count - start])


def check_room(run: RunDir, need: Need) -> Finding:
    """Compare what is needed with what is free."""
    free, saved = free_bytes(run.path), need.checkpoint * need.checkpoints
    disk = f"{readable_bytes(free)} free on disk for {readable_bytes(saved)} of checkpoints"
    memory = f"{readable_bytes(need.memory_free)} of memory free for at most {readable_bytes(need.memory)}"
    if free < saved:
        return Finding(ROOM, disk, "failed", "train.keep_checkpoints", CURE, MachineError)
    if need.memory > need.memory_free:
        cure = "lower train.micro_batch_tokens or data.max_tokens, or set engine.memory to low"
        return Finding(ROOM, f"only {memory}", "warning", "train.micro_batch_tokens", cure)
    if free < saved + need.merged:
        found = f"{disk}, but not for the merged model ({readable_bytes(need.merged)}) as well"
        return Finding(ROOM, found, "warning", cure=CURE)
    return Finding(ROOM, f"{disk}; {memory}" if need.memory else disk)
