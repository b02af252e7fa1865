"""Kills training runs and lets them go on: imports once, then forks a child for every trial.

Run as a script by test_kill.py: ``kill_server.py RECIPE WORKDIR RANDOM_TRIALS``; prints one JSON
object: the digests of the unbroken run, and for each trial what happened and its digests.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from lora_kit.artifacts.commit import FAILPOINTS
from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.cli.app import run as command_line


def child(recipe: str, folder: Path, environment: dict[str, str]) -> int:
    """Fork, train in the child, return its process id."""
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(environment)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        log = (folder.parent / f"{folder.name}.log").open("a")
        os.dup2(log.fileno(), 2)
        os._exit(command_line(["train", recipe, "--run-dir", str(folder)]))


def wait(pid: int) -> int:
    """Exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def digests(folder: Path) -> dict[str, str]:
    """What must be equal: the adapter, the optimizer's last state, the metrics without clock times."""
    last = max((folder / "checkpoints").glob("step-*"))
    return {
        "adapter": hashlib.sha256((folder / "adapter/adapter_model.safetensors").read_bytes()).hexdigest(),
        "optimizer": hashlib.sha256((last / "optimizer.safetensors").read_bytes()).hexdigest(),
        "metrics": stable_digest(folder / "metrics.jsonl"),
        "last": last.name,
    }


def go_on(recipe: str, folder: Path) -> dict[str, object]:
    """Run again until it is done, and look at what it made."""
    code = wait(child(recipe, folder, {}))
    return {"resumed": code, "digests": digests(folder) if code == 0 else {}}


def main() -> None:
    """Run all trials."""
    recipe, work, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)  # a fork does not copy other threads
    command_line(["train", recipe, "--run-dir", str(work / "warm-up")])  # imports what is imported late
    began = time.monotonic()
    assert wait(child(recipe, work / "unbroken", {})) == 0
    duration = time.monotonic() - began
    trials = []
    chance = random.Random(int(os.environ.get("LORA_KIT_KILL_SEED", "7")))
    for number in range(count):
        folder = work / f"random-{number}"
        pid = child(recipe, folder, {})
        time.sleep(chance.uniform(0.1, 1.0) * duration)
        os.kill(pid, signal.SIGKILL)
        trials.append({"trial": folder.name, "killed": wait(pid), **go_on(recipe, folder)})
    for point in FAILPOINTS:
        for turn in (1, 3) if point.startswith("checkpoint") else (1,):
            folder = work / f"{point}-{turn}"
            code = wait(child(recipe, folder, {"LORA_KIT_FAILPOINT": f"{point}@{turn}=kill"}))
            trials.append({"trial": folder.name, "killed": code, **go_on(recipe, folder)})
    print(json.dumps({"unbroken": digests(work / "unbroken"), "seconds": duration, "trials": trials}))


if __name__ == "__main__":
    main()
