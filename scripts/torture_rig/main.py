"""The command line of scripts/torture: makes the trials, runs them, prints the counts."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from torture_rig import damage, disk, kills, power, surroundings, tiny
from torture_rig.processes import digests, train
from torture_rig.trials import Rig, Trial, Verdict, progress_on, run_all

ENDS = ("identical", "fell back", "refused", "wrong")
AROUND = "two runs at once, clock jumps, terminal closed, stop signal, machine suspended"
SPARSE = 19  # every so many-th write, for the test suite
MEMORY = Path("/dev/shm")  # noqa: S108 - fsync waits for nothing there; it is called and checked all the same


def main(argv: list[str]) -> int:
    """Run what is asked for; 1 if any trial ended wrong."""
    options = _options(argv)
    torch.set_num_threads(1)  # before anything computes: see processes.py
    began = time.monotonic()
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="lora-kit-torture-", dir=place) as folder:
        work = Path(folder)
        work.chmod(0o755)  # one trial runs as nobody
        os.environ.update(LORA_KIT_CACHE=str(work / "cache"), TMPDIR=folder)
        tempfile.tempdir = folder
        rig = _rig(work)
        trials = [trial for trial in _trials(rig, options) if options.only in trial.kind]
        done = run_all(trials, work, options.jobs, progress_on(sys.stderr, len(trials)))
        if options.keep:
            shutil.copytree(work, options.keep, symlinks=True)
    table = _count(done)
    seconds = time.monotonic() - began
    _show(done, table, seconds)
    if options.json:
        wrong = {trial.name: verdict.why for trial, verdict in done if verdict.ended == "wrong"}
        options.json.write_text(
            json.dumps({"table": table, "wrong": wrong, "seconds": round(seconds, 1)}, indent=2)
        )
    return int(any(verdict.ended == "wrong" for _, verdict in done) or not done)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=(__doc__ or "").strip())
    parser.add_argument("--kills", type=int, default=50, help="random SIGKILLs (default: 50)")
    parser.add_argument("--seed", type=int, default=7, help="of their moments")
    parser.add_argument("--slim", action="store_true", help="fewer turns and writes, for the test suite")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="kinds of trials whose name has this in it"
    )
    parser.add_argument("--jobs", type=int, default=2, help="trials at once, one thread each (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there as well")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy all run directories there")
    return parser.parse_args(argv)


def _rig(work: Path) -> Rig:
    """Base, recipes, and the unbroken run of each recipe that trials are compared with."""
    rig = Rig(work, tiny.build(work))
    os.environ["LORA_KIT_FAILPOINT"] = ""
    _import_what_is_imported_late(rig)
    for name in ("dropout", "prefixes", "short"):
        began = time.monotonic()
        outcome = train(rig.recipes[name], work / f"unbroken-{name}")
        if outcome.code != 0:
            raise SystemExit(f"the unbroken run {name} failed: {outcome.said}")
        rig.seconds[name] = time.monotonic() - began
        rig.unbroken[name] = digests(work / f"unbroken-{name}")
    return rig


def _import_what_is_imported_late(rig: Rig) -> None:
    """Train once in this process, on one thread, so that children have nothing left to import."""
    from lora_kit.cli.app import run

    table, words = os.dup(1), os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        code = run(["train", str(rig.recipes["short"]), "--run-dir", str(rig.work / "warm-up")])
    for ours, standard in ((table, 1), (words, 2)):
        os.dup2(ours, standard)
        os.close(ours)
    if code:
        raise SystemExit(f"the first run failed with {code}")


def _trials(rig: Rig, options: argparse.Namespace) -> list[Trial]:
    slim = options.slim
    made = {
        "random kill": lambda: kills.random_kills(rig, options.kills, options.seed),
        "failpoint": lambda: kills.failpoints(rig, (1,) if slim else (1, 3)),
        "token budget": lambda: kills.token_budgets(rig),
        "damaged checkpoint, damaged run file": lambda: damage.matrix(rig, is_slim=slim),
        "power cut": lambda: power.cuts(rig, (1,), power.LOSSES[-1:]) if slim else power.cuts(rig, (1, 2)),
        "disk full": lambda: disk.full_disks(rig, SPARSE if slim else 1),
        "read-only folder": lambda: disk.read_only(rig),
        AROUND: lambda: surroundings.around(rig),
    }
    return [trial for kinds, make in made.items() if options.only in kinds for trial in make()]


def _count(done: list[tuple[Trial, Verdict]]) -> dict[str, dict[str, int]]:
    table: dict[str, Counter[str]] = {}
    for trial, verdict in done:
        line = table.setdefault(trial.kind, Counter())
        line.update({"trials": 1, "kills": verdict.kills, verdict.ended: 1})
    return {
        kind: {name: line[name] for name in ("trials", "kills", *ENDS)}
        for kind, line in sorted(table.items())
    }


def _show(done: list[tuple[Trial, Verdict]], table: dict[str, dict[str, Any]], seconds: float) -> None:
    print("| What is done to a run | Trials | Kills | Same bits | Fell back, same bits | Refused | Wrong |")
    print("|---|---|---|---|---|---|---|")
    for kind, line in table.items():
        print(f"| {kind} | " + " | ".join(str(count) for count in line.values()) + " |")
    total = {name: sum(line[name] for line in table.values()) for name in ("trials", "kills", *ENDS)}
    print("| all | " + " | ".join(str(count) for count in total.values()) + " |")
    damaged = table.get("damaged checkpoint", {"trials": 0, "wrong": 0})
    print(f"\n{damaged['wrong']} of {damaged['trials']} damaged checkpoints were half used; {seconds:.0f} s.")
    for trial, verdict in done:
        if verdict.ended == "wrong":
            print(f"wrong: {trial.name}: {verdict.why}", file=sys.stderr)
