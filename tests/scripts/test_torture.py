"""scripts/torture in small: kills, damage, full disks and whatever happens around real processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "torture"
KINDS = {
    "random kill",
    "failpoint",
    "token budget",
    "damaged checkpoint",
    "damaged run file",
    "power cut",
    "disk full",
    "read-only folder",
    "two runs at once",
    "clock jumps",
    "terminal closed",
    "stop signal",
    "machine suspended",
}


@pytest.mark.fault("D1", "D2", "D3", "D4", "D5", "D6", "D7", "D9", "D10", "D14", "D16", "P1", "P2")
def test_nothing_is_lost_and_nothing_is_half_used(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--slim", "--kills", "4", "--json", str(tmp_path / "counts.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-5000:]
    table = json.loads((tmp_path / "counts.json").read_text())["table"]
    assert table.keys() == KINDS
    assert all(line["trials"] > 0 and line["wrong"] == 0 for line in table.values())
    assert table["random kill"]["kills"] >= 4
    assert table["failpoint"]["identical"] == table["failpoint"]["trials"]
    assert table["damaged checkpoint"]["fell back"] > table["damaged checkpoint"]["refused"]


def test_harm_that_is_noticed_by_nobody_is_counted(tmp_path: Path) -> None:
    """The judge itself: a changed adapter, a missing word, litter, a bug, two errors at once are wrong."""
    from torture_rig.processes import Outcome, digests
    from torture_rig.trials import Rig

    run = tmp_path / "run"
    for name in ("adapter/adapter_model.safetensors", "checkpoints/step-000001/optimizer.safetensors"):
        (run / name).parent.mkdir(parents=True)
        (run / name).write_bytes(b"weights")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "seconds": 3}\n')
    rig = Rig(tmp_path, {}, {"recipe": digests(run)})
    well = Outcome(0, "skipped step-000002")
    assert rig.judge("recipe", run, well).ended == "identical"
    assert rig.judge("recipe", run, well, skipped="step-000002").ended == "fell back"
    assert rig.judge("recipe", run, well, skipped="step-000003").ended == "wrong"
    refused, twice = Outcome(5, "lora_kit: error: disk full\n"), Outcome(5, "error: one\nerror: two\n")
    assert rig.judge("recipe", run, refused).ended == "wrong"
    assert rig.judge("recipe", run, refused, may_refuse=True).ended == "refused"
    assert rig.judge("recipe", run, twice, may_refuse=True).ended == "wrong"
    assert rig.judge("recipe", run, Outcome(1, "error: a bug\n"), may_refuse=True).ended == "wrong"
    (run / "checkpoints/.tmp-step-000002-7").mkdir()
    assert rig.judge("recipe", run, well).ended == "wrong"
    (run / "checkpoints/.tmp-step-000002-7").rmdir()
    (run / "adapter/adapter_model.safetensors").write_bytes(b"others")
    assert rig.judge("recipe", run, well).ended == "wrong"
