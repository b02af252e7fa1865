"""Kills runs around the moments at which their token budget is written, and lets them go on.

Run as a script by test_budget_kill.py: ``budget_kill_server.py RECIPE WORKDIR``; imports once, forks a child
for every trial, prints one JSON object. A first and a resumed run choose different budgets if they measure.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch

from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.cli.app import run as command_line
from lora_kit.train import rehearse
from lora_kit.train import step as step_module

rehearse.BUDGETS = (32, 64, 128, 256)
FIRST, RESUMED = "32", "256"


def train(recipe: str, folder: Path, prefers: str, **environment: str) -> int:
    """Fork, train in the child with a budget that it prefers; return its exit code, negative for a signal."""
    pid = os.fork()
    if not pid:
        os.environ.update(environment)
        rehearse.choose = lambda found, **_: next(m for m in found if m.tokens >= int(prefers))
        fail_at(int(environment.get("FAIL_AT_CALL", "0")))
        log = (folder.parent / f"{folder.name}.log").open("a")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        os._exit(command_line(["train", recipe, "--run-dir", str(folder)]))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fail_at(call: int) -> None:
    """Let the allocation of one micro-batch fail, counted from the run's first."""
    true_sum, calls = step_module.sum_nats, [0]

    def sum_nats(model: object, batch: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return true_sum(model, batch)

    step_module.sum_nats = sum_nats


def outcome(folder: Path) -> dict[str, object]:
    """What must be equal, and the budget that it goes with."""
    last = max((folder / "checkpoints").glob("step-*"))
    budget = json.loads((folder / "token_budget.json").read_text())
    return {
        "adapter": hashlib.sha256((folder / "adapter/adapter_model.safetensors").read_bytes()).hexdigest(),
        "optimizer": hashlib.sha256((last / "optimizer.safetensors").read_bytes()).hexdigest(),
        "metrics": stable_digest(folder / "metrics.jsonl"),
        "tokens": budget["tokens"],
        "changes": budget["changes"],
    }


def main() -> None:
    """Run all trials."""
    recipe, work = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)  # a fork does not copy other threads
    fixed = Path(sys.argv[1]).with_name("fixed.yaml")
    command_line(["train", str(fixed), "--run-dir", str(work / "warm-up")])  # imports what is imported late
    unbroken = {}
    for prefers in (FIRST, RESUMED):
        assert train(recipe, work / f"unbroken-{prefers}", prefers) == 0
        unbroken[prefers] = outcome(work / f"unbroken-{prefers}")
    trials = []
    for point in ("file.after_write", "file.after_rename"):
        for turn in (7, 8):
            folder = work / f"{point}-{turn}"
            killed = train(recipe, folder, FIRST, LORA_KIT_FAILPOINT=f"{point}@{turn}=kill")
            written = (folder / "token_budget.json").exists()
            resumed = train(recipe, folder, RESUMED)
            found = outcome(folder) if resumed == 0 else {}
            trials.append({"killed": killed, "written": written, "resumed": resumed, "outcome": found})
    healed = {}
    for name, kill in (("unbroken", ""), ("killed", "checkpoint.after_adapter@3=kill")):
        folder = work / f"healed-{name}"
        code = train(str(fixed), folder, FIRST, FAIL_AT_CALL="3", LORA_KIT_FAILPOINT=kill)
        assert code == (-9 if kill else 0)
        if kill:
            assert train(str(fixed), folder, RESUMED) == 0
        healed[name] = outcome(folder)
    print(json.dumps({"unbroken": unbroken, "trials": trials, "healed": healed}))


if __name__ == "__main__":
    main()
