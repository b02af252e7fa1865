"""Faults of the disk and the process: cases D2 D3 D7 D8 D9 D10 D14 D16 D20 D24 E3.

A miniature run (no model: each step's tensors derive from the step before) goes
through every write that a real run does, and is broken at every point of them.
"""

import hashlib
import os
import resource
import shutil
import signal
import stat
import time
import warnings
from pathlib import Path

import pytest
import torch

from lora_kit.artifacts.adapter import read_adapter, save_adapter
from lora_kit.artifacts.checkpoint import CheckpointState, newest_valid, rotate, save_checkpoint, saved_steps
from lora_kit.artifacts.commit import FAILPOINTS
from lora_kit.artifacts.metrics_log import MetricsLog, read_metrics, stable_digest
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.errors import LoraKitError, MachineError, RunLockedError

IDENTITY = {
    "training_fingerprint": "a" * 64,
    "data_fingerprint": "b" * 64,
    "base_fingerprint": "c" * 64,
    "threads": "1",
}
LAST_STEP = 5
OURS = ("file.", "directory.", "checkpoint.", "discard.", "adapter.", "metrics.", "run.")
POINTS = [name for name in FAILPOINTS if name.startswith(OURS)]
ONCE = ("run.after_create", "run.before_owner", "metrics.after_truncate", "directory.after_old")
AGAIN = [name for name in POINTS if name not in ONCE]
CHECKPOINT_FILES = ("adapter.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def next_state(state: CheckpointState | None, offset: int) -> CheckpointState:
    """A step that depends on every number of the one before."""
    step = state.step + 1 if state else 1
    before = state.adapter["lora_A"] if state else torch.zeros(4, 3)
    moments = state.optimizer["exp_avg"] if state else torch.ones(4, 3)
    return CheckpointState(
        step,
        {"lora_A": before * 0.9 + moments / step},
        {"exp_avg": moments * 0.7 + before, "random": torch.full((8,), step, dtype=torch.uint8)},
        {"offset": offset, "loss": 1 / (step + 2)},
        IDENTITY,
    )


def work(path: Path, last_step: int = LAST_STEP) -> RunDir:
    """Train, or go on training, to the end."""
    run = open_run(path)
    log = MetricsLog(run.metrics)
    with run.lock():
        state, _ = newest_valid(run, IDENTITY)
        rotate(run, keep=2, best_step=1)
        log.truncate(state.progress["offset"] if state else 0)
        for step in range(state.step + 1 if state else 1, last_step + 1):
            log.append({"step": step, "loss": 1 / step, "seconds": time.time()})
            log.sync()
            state = next_state(state, log.offset)
            save_checkpoint(run, state)
            rotate(run, keep=2, best_step=1)
        for _ in range(2):  # the second replaces the first
            save_adapter(
                run.adapter, tensors=state.adapter, config={"r": 3}, provenance={"step": state.step}, files={}
            )
        run.update_state(status="finished")
    log.close()
    return run


def contents(run: RunDir) -> dict[str, str]:
    """What may not depend on how often a run was cut: every byte but the clock's."""
    files = [path for path in sorted(run.path.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {
        path.relative_to(run.path).as_posix(): stable_digest(path)
        if path == run.metrics
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def in_child(action, failpoint: str = "") -> int:
    """Do it in a forked process.

    Returns:
        Its exit code: a LoraKitError's own, 99 for another exception, or minus the signal that killed it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.environ["LORA_KIT_FAILPOINT"] = failpoint
        code = 99
        try:
            action()
            code = 0
        except LoraKitError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module", autouse=True)
def no_fsync():
    """A killed process loses nothing that it wrote, synced or not; waiting for the disk takes minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> RunDir:
    return work(tmp_path_factory.mktemp("unbroken") / "run")


def finish_and_compare(path: Path, unbroken: RunDir) -> None:
    run = open_run(path)
    if run.checkpoints.is_dir() and saved_steps(run):
        state, skipped = newest_valid(run, IDENTITY)
        assert state is not None
        assert skipped == []
    assert contents(work(path)) == contents(unbroken)
    assert read_adapter(run.adapter).config == {"r": 3}


@pytest.mark.parametrize(
    "point", [*POINTS, *(f"{name}@2" for name in AGAIN), *(f"file.after_rename@{n}" for n in range(3, 17))]
)
def test_d2_a_kill_at_every_failpoint_loses_nothing(tmp_path, unbroken, point):
    assert in_child(lambda: work(tmp_path / "run"), f"{point}=kill") == -signal.SIGKILL
    finish_and_compare(tmp_path / "run", unbroken)


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("action", ["enospc", "raise"])
def test_d7_a_full_disk_or_a_bug_at_every_failpoint_loses_nothing(tmp_path, unbroken, name, action):
    assert in_child(lambda: work(tmp_path / "run"), f"{name}={action}") == {"enospc": 5, "raise": 99}[action]
    finish_and_compare(tmp_path / "run", unbroken)


def test_d2_killed_again_and_again_at_every_next_commit(tmp_path, unbroken):
    kills = 0
    while in_child(lambda: work(tmp_path / "run"), "directory.after_rename=kill") == -signal.SIGKILL:
        kills += 1
        assert kills < 20
        if (tmp_path / "run" / "adapter").exists():
            break
    assert kills == LAST_STEP + 1
    finish_and_compare(tmp_path / "run", unbroken)


def small_disk(action, limit_bytes: int) -> int:
    """Do it in a process none of whose files may grow beyond the limit."""

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
        action()

    return in_child(limited)


def test_d7_a_real_refusal_of_the_system_at_save(tmp_path):
    run = work(tmp_path / "run", last_step=2)
    before = contents(run)
    large = CheckpointState(3, {"x": torch.zeros(5000)}, {}, {}, IDENTITY)
    assert small_disk(lambda: save_checkpoint(run, large), 10_000) == 5
    assert small_disk(lambda: save_checkpoint(run, large), 100) == 5
    assert contents(run) == before
    assert not list(run.checkpoints.glob(".*"))
    assert newest_valid(run, IDENTITY)[0].step == 2


def test_d7_the_message_has_bytes_and_the_final_path(tmp_path, monkeypatch):
    run = open_run(tmp_path / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 4321))
    with pytest.raises(MachineError) as caught:
        save_checkpoint(run, next_state(None, 0))
    text = str(caught.value)
    assert text.startswith(
        f"{run.checkpoints}/step-000001: no space left on device: 1.0 MB needed, 4.3 kB free; free"
    )


def test_d8_a_full_disk_leaves_no_half_line_in_the_log(tmp_path):
    path = tmp_path / "metrics.jsonl"

    def fill():
        log = MetricsLog(path)
        for step in range(1000):
            log.append({"step": step, "loss": 0.5})

    assert small_disk(fill, 1000) == 5
    content = path.read_bytes()
    assert content.endswith(b"\n")
    assert len(content) > 900
    assert [record["step"] for record in read_metrics(path)] == list(range(content.count(b"\n")))


@pytest.mark.parametrize("code", ["erofs", "eacces"])
def test_d9_a_directory_that_can_not_be_written_is_said_at_the_start(tmp_path, monkeypatch, code):
    run = open_run(tmp_path / "run")
    monkeypatch.setenv("LORA_KIT_FAILPOINT", f"run.before_owner={code}")
    with pytest.raises(MachineError, match="choose a directory that you can write to"), run.lock():
        raise AssertionError("must not start")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_d9_a_read_only_parent(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(MachineError, match="choose a directory that you can write to"):
            open_run(tmp_path / "run")
    finally:
        tmp_path.chmod(0o700)


def test_d9_a_run_that_is_deleted_meanwhile_is_not_made_again(tmp_path):
    run = work(tmp_path / "run", last_step=1)
    shutil.rmtree(run.path)
    with pytest.raises(MachineError, match="moved or deleted while in use"):
        save_checkpoint(run, next_state(None, 0))
    with pytest.raises(MachineError, match="moved or deleted while in use"):
        save_adapter(run.adapter, tensors={}, config={}, provenance={}, files={})
    assert not run.path.exists()


def test_d10_a_second_process_is_kept_out_and_a_dead_one_is_not_in_the_way(tmp_path):
    run = open_run(tmp_path / "run")
    with run.lock():
        before = contents(run)
        assert in_child(lambda: work(run.path)) == RunLockedError.exit_code
        assert contents(run) == before
    assert in_child(lambda: work(run.path), "metrics.after_line=kill") == -signal.SIGKILL
    with run.lock():
        pass


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if kind == "missing":
        return
    if kind == "swapped":
        shutil.copy(path.parent.parent / "step-000004" / path.name, path)
        return
    position = len(content) // 2
    flipped = content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]
    path.write_bytes({"empty": b"", "truncated": content[:-7], "bit flip": flipped}[kind])


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "bit flip", "swapped"])
@pytest.mark.parametrize("name", CHECKPOINT_FILES)
@pytest.mark.fault("P2")
def test_d14_a_damaged_checkpoint_is_skipped_with_its_reason(tmp_path, unbroken, name, kind):
    shutil.copytree(unbroken.path, tmp_path / "run")
    run = open_run(tmp_path / "run")
    damage(run.checkpoints / "step-000005" / name, kind)
    state, skipped = newest_valid(run, IDENTITY)
    assert state.step == 4
    assert skipped
    assert all(reason.startswith("step-000005: ") for reason in skipped)
    assert name == "manifest.json" or [reason.split(": ")[1] for reason in skipped] == [name]
    assert contents(work(run.path)) == contents(unbroken)


def test_d14_a_whole_checkpoint_under_another_number_is_not_taken(tmp_path, unbroken):
    shutil.copytree(unbroken.path, tmp_path / "run")
    run = open_run(tmp_path / "run")
    (run.checkpoints / "step-000005").rename(run.checkpoints / "step-000009")
    state, skipped = newest_valid(run, IDENTITY)
    assert (state.step, skipped) == (4, ["step-000009: holds step 5, not 9"])


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_d3_names_survived_a_power_cut_and_contents_did_not(tmp_path, unbroken, name):
    shutil.copytree(unbroken.path, tmp_path / "run")
    run = open_run(tmp_path / "run")
    for step in ("step-000005", "step-000004"):
        os.truncate(run.checkpoints / step / name, 0)
    state, skipped = newest_valid(run, IDENTITY)
    assert (state.step, len(skipped)) == (1, 2)  # the best, kept by rotation
    assert contents(work(run.path)).keys() == contents(unbroken).keys()
    assert newest_valid(run, IDENTITY)[0].step == LAST_STEP


def test_d3_nothing_whole_is_left(tmp_path, unbroken):
    shutil.copytree(unbroken.path, tmp_path / "run")
    run = open_run(tmp_path / "run")
    for path in run.checkpoints.rglob("manifest.json"):
        path.unlink()
    assert newest_valid(run, IDENTITY) == (
        None,
        [f"step-00000{step}: manifest.json: is missing" for step in (5, 4, 1)],
    )
    assert contents(work(run.path)) == contents(unbroken)


def test_d15_a_finished_run_is_not_touched_by_looking(tmp_path, unbroken):
    before = {path: path.stat().st_mtime_ns for path in unbroken.path.rglob("*")}
    run = open_run(unbroken.path)
    assert run.read_state()["status"] == "finished"
    newest_valid(run, IDENTITY)
    read_adapter(run.adapter).tensors()
    read_metrics(run.metrics)
    assert {path: path.stat().st_mtime_ns for path in unbroken.path.rglob("*")} == before


def test_d16_the_clock_decides_nothing(tmp_path, unbroken):
    run = work(tmp_path / "run", last_step=3)
    for age, step in enumerate(saved_steps(run)):  # the newest looks oldest
        os.utime(run.checkpoints / f"step-{step:06d}", (10**9 - age, 10**9 - age))
    assert newest_valid(run, IDENTITY)[0].step == 3
    assert contents(work(run.path)) == contents(unbroken)


def test_d20_few_open_files_many_lines_many_checkpoints(tmp_path):
    def many():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        work(tmp_path / "run", last_step=200)
        log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
        for step in range(201, 10_001):
            log.append({"step": step})

    assert in_child(many) == 0
    run = open_run(tmp_path / "run")
    assert saved_steps(run) == [1, 199, 200]
    assert len(read_metrics(run.metrics)) == 10_000


@pytest.mark.parametrize("name", ["a b\tc", "läufe-✓-🦙", "x" * 255, "-rf", "a'b\"c;$(true)", "%s{}*[a]?"])
def test_d24_any_name_works(tmp_path, monkeypatch, unbroken, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    run = work(Path(f"run {name[:80]}/"))
    assert contents(run).keys() == contents(unbroken).keys()
    assert newest_valid(run, IDENTITY)[0].step == LAST_STEP


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_e3_every_file_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        run = work(tmp_path / "run", last_step=2)
    finally:
        os.umask(before)
    for path in (run.path, *run.path.rglob("*")):
        expected = (0o777 if path.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
