"""SIGKILL at random moments and at every point of a commit: the result equals an unbroken run to the bit."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.artifacts.commit import FAILPOINTS

RANDOM_KILLS = int(os.environ.get("LORA_KIT_RANDOM_KILLS", "10"))


@pytest.mark.fault("D1", "D2", "P1")
def test_killed_and_resumed_equals_unbroken(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = tiny_recipe(train={"steps": 4, "save_every": 1, "validate_every": 2, "micro_batch_tokens": 200})
    work = tmp_path / "work"
    work.mkdir()
    server = Path(__file__).with_name("kill_server.py")
    done = subprocess.run(
        [sys.executable, str(server), str(recipe), str(work), str(RANDOM_KILLS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    trials = {trial["trial"]: trial for trial in outcome["trials"]}
    wrong = {
        name: (trial, (work / f"{name}.log").read_text()[-500:])
        for name, trial in trials.items()
        if trial["resumed"] != 0 or trial["digests"] != outcome["unbroken"]
    }
    assert not wrong
    assert len(trials) == RANDOM_KILLS + len(FAILPOINTS) + sum(p.startswith("checkpoint") for p in FAILPOINTS)
    killed = {name.rpartition("-")[0] for name, trial in trials.items() if trial["killed"] == -9}
    rare = {"directory.after_old"}  # only reached where a directory is replaced
    assert set(FAILPOINTS) - rare <= killed, "a failpoint was never reached"
