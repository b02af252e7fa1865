"""Training commands as real processes that start in no time: forked from one that has imported everything.

The parent never computes on more than one thread, for a fork copies no other (OpenMP would wait for its
threads for ever). What a child does differently, such as a full disk, is a function that it calls first.
"""

import hashlib
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.cli.app import run as command_line

Change = Callable[[], object]
PATIENCE_S = 120.0  # of a process that takes a second


class Outcome(NamedTuple):
    """How a command ended.

    Args:
        code: Its exit code, negative for a signal.
        said: What it wrote to standard error.
    """

    code: int
    said: str


def nothing() -> None:
    """Change nothing in the child."""


def start(recipe: Path, folder: Path, change: Change = nothing, **environment: str) -> int:
    """Fork, and train in the child; its words go to a file beside the run.

    Returns:
        The process id.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.environ.update(environment)
        with Path(os.devnull).open("w") as nowhere, _log(folder).open("a") as log:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(log.fileno(), 2)
        change()
        code = command_line(["train", str(recipe), "--run-dir", str(folder)])
    except BaseException:  # noqa: BLE001 - nothing may leave a forked process
        traceback.print_exc()
    os._exit(code)


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def finish(pid: int, folder: Path) -> Outcome:
    """Wait for a process; one that hangs is killed, and counts as that."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
        time.sleep(0.005)
    log = _log(folder)
    said = log.read_text("utf-8", "replace") if log.is_file() else ""
    log.unlink(missing_ok=True)
    return Outcome(os.waitstatus_to_exitcode(status), said)


def train(recipe: Path, folder: Path, change: Change = nothing, **environment: str) -> Outcome:
    """Train to the end, or to whatever ends it."""
    return finish(start(recipe, folder, change, **environment), folder)


def digests(folder: Path) -> dict[str, str]:
    """What must be equal to the bit: adapter, optimizer, the log without the clock's fields, the budget."""
    last = max((folder / "checkpoints").glob("step-*"))
    files = {
        "adapter": folder / "adapter" / "adapter_model.safetensors",
        "optimizer": last / "optimizer.safetensors",
        "state": last / "state.json",
        "token budget": folder / "token_budget.json",
    }
    hashes = {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path.is_file()
    }
    return {**hashes, "metrics": stable_digest(folder / "metrics.jsonl"), "last": last.name}
