"""What happens around a run: a second one, clocks, closed terminals, stop signals, a machine that sleeps."""

import os
import random
import signal
import time
from pathlib import Path

from torture_rig.processes import Outcome, finish, start, train
from torture_rig.trials import Rig, Trial, Verdict

IN_USE = 10  # exit code of a run directory that another process works in


def around(rig: Rig) -> list[Trial]:
    """All trials."""
    acts = {
        "two runs at once": [_second_is_kept_out, _all_at_once],
        "clock jumps": [_clock_back, _clock_forth],
        "terminal closed": [_hang_up, _closed_output],
        "stop signal": [_interrupted, _terminated, _terminated_twice],
        "machine suspended": [_suspended_often, _suspended_in_a_commit],
    }
    return [
        Trial(kind, f"around{act.__name__}", lambda act=act: act(rig, rig.work / f"around{act.__name__}"))
        for kind, these in acts.items()
        for act in these
    ]


def _second_is_kept_out(rig: Rig, folder: Path) -> Verdict:
    """The first one is asleep in the middle of a commit; a second one must not even look."""
    recipe = rig.recipes["dropout"]
    first = _stopped_at(rig, folder, "checkpoint.after_optimizer@2")
    second = folder.with_name(f"{folder.name}-log")
    second.symlink_to(folder)  # another name for it, and words of its own
    outcome = train(recipe, second)
    os.kill(first, signal.SIGCONT)
    judged = rig.judge("dropout", folder, finish(first, folder))
    if outcome.code != IN_USE or f"process {first}" not in outcome.said:
        return Verdict("wrong", f"the second: {outcome}")
    return judged


def _stopped_at(rig: Rig, folder: Path, point: str) -> int:
    """Start a run that stops itself at a failpoint; return its id when it has."""
    true_kill = os.kill

    def stop_instead() -> None:
        os.kill = lambda pid, _number: true_kill(pid, signal.SIGSTOP)

    pid = start(rig.recipes["dropout"], folder, stop_instead, LORA_KIT_FAILPOINT=f"{point}=kill")
    while not os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1]):
        pass
    return pid


def _all_at_once(rig: Rig, folder: Path) -> Verdict:
    """Four start together in a folder that is not there yet: one trains, the others are told."""
    folder.parent.mkdir(exist_ok=True)
    pids = [start(rig.recipes["dropout"], folder) for _ in range(4)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if set(codes) - {0, IN_USE} or 0 not in codes:
        return Verdict("wrong", f"they ended with {codes}")
    return rig.judge("dropout", folder, train(rig.recipes["dropout"], folder))


def _jumping(seconds: float) -> None:
    """In a child: the clock on the wall jumps at every look."""
    true, jumps = time.time, [0.0]

    def jump() -> float:
        jumps[0] += seconds
        return true() + jumps[0]

    time.time = jump


def _clock_back(rig: Rig, folder: Path) -> Verdict:
    return _through_a_kill(rig, folder, -86_400)


def _clock_forth(rig: Rig, folder: Path) -> Verdict:
    return _through_a_kill(rig, folder, 86_400 * 365)


def _through_a_kill(rig: Rig, folder: Path, seconds: float) -> Verdict:
    """The clock jumps before and after a kill, and the older a checkpoint is, the newer it looks."""
    recipe = rig.recipes["dropout"]
    train(recipe, folder, lambda: _jumping(seconds), LORA_KIT_FAILPOINT="metrics.after_line@7=kill")
    for age, path in enumerate(sorted((folder / "checkpoints").iterdir())):
        os.utime(path, (2e9 - age, 2e9 - age))
    return rig.judge("dropout", folder, train(recipe, folder, lambda: _jumping(-seconds)), kills=1)


def _hang_up(rig: Rig, folder: Path) -> Verdict:
    """SIGHUP between two steps, standard input closed."""
    recipe = rig.recipes["dropout"]
    pid = start(recipe, folder, lambda: os.close(0), LORA_KIT_FAILPOINT="metrics.after_line@3=sleep:1")
    _wait_for_lines(folder, 3)
    os.kill(pid, signal.SIGHUP)
    return rig.judge("dropout", folder, finish(pid, folder))


def _closed_output(rig: Rig, folder: Path) -> Verdict:
    """Nobody reads what it says: every write to its output fails."""

    def close() -> None:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)
        os.dup2(writing, 2)

    return rig.judge("dropout", folder, train(rig.recipes["dropout"], folder, close))


def _wait_for_lines(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        log = folder / "metrics.jsonl"
        if log.is_file() and log.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)


def _stop(rig: Rig, folder: Path, numbers: tuple[int, ...], codes: tuple[int, ...]) -> Verdict:
    recipe = rig.recipes["dropout"]
    pid = start(recipe, folder, LORA_KIT_FAILPOINT="metrics.after_line@3=sleep:1")
    _wait_for_lines(folder, 3)
    for number in numbers:
        os.kill(pid, number)
        time.sleep(0.05)  # two signals of a kind at once are one
    stopped = finish(pid, folder)
    if stopped.code not in codes or stopped.said.count("error:") != 1:
        return Verdict("wrong", f"stopped: {stopped}")
    return rig.judge("dropout", folder, train(recipe, folder))


def _interrupted(rig: Rig, folder: Path) -> Verdict:
    return _stop(rig, folder, (signal.SIGINT,), (130,))


def _terminated(rig: Rig, folder: Path) -> Verdict:
    return _stop(rig, folder, (signal.SIGTERM,), (143,))


def _terminated_twice(rig: Rig, folder: Path) -> Verdict:
    return _stop(rig, folder, (signal.SIGTERM, signal.SIGTERM), (130,))


def _suspended_often(rig: Rig, folder: Path) -> Verdict:
    """The machine sleeps at random moments, for longer than the whole run takes in all."""
    chance, pid = random.Random(3), start(rig.recipes["dropout"], folder)
    ended = 0
    while not ended:
        time.sleep(chance.uniform(0.02, 0.2))
        os.kill(pid, signal.SIGSTOP)
        time.sleep(chance.uniform(0.1, 0.3))
        os.kill(pid, signal.SIGCONT)
        ended, status = os.waitpid(pid, os.WNOHANG)
    code = os.waitstatus_to_exitcode(status)
    log = folder.with_name(f"{folder.name}.log")
    return rig.judge("dropout", folder, Outcome(code, log.read_text("utf-8", "replace")))


def _suspended_in_a_commit(rig: Rig, folder: Path) -> Verdict:
    pid = _stopped_at(rig, folder, "directory.after_manifest@2")
    time.sleep(1.0)
    os.kill(pid, signal.SIGCONT)
    return rig.judge("dropout", folder, finish(pid, folder))
