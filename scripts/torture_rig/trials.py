"""A trial does harm to one run and looks at what comes out; each is a process of its own, a few at a time."""

import json
import os
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TextIO

from lora_kit.artifacts.checkpoint import step_name
from lora_kit.artifacts.manifest import verify_dir
from torture_rig.processes import Outcome, digests

Ended = Literal["identical", "fell back", "refused", "wrong"]
REFUSALS = (2, 3, 4, 5, 10)  # exit codes of lora_kit's own errors; 1 is a bug


class Verdict(NamedTuple):
    """What came of a trial.

    Args:
        ended: ``identical``: went on to the same bits. ``fell back``: the same, and said which checkpoints it
            skipped. ``refused``: an error of one line. ``wrong``: anything else.
        why: What went wrong, or which error it was.
        kills: Processes that were killed.
    """

    ended: Ended
    why: str = ""
    kills: int = 0


@dataclass(frozen=True, slots=True)
class Rig:
    """What all trials share.

    Args:
        work: A folder for runs.
        recipes: By name.
        unbroken: Recipe to what its unbroken run leaves.
        seconds: Recipe to the length of that run.
    """

    work: Path
    recipes: dict[str, Path]
    unbroken: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def judge(
        self,
        recipe: str,
        folder: Path,
        outcome: Outcome,
        *,
        skipped: str = "",
        may_refuse: bool = False,
        kills: int = 0,
    ) -> Verdict:
        """Judge a run that went on after the harm.

        Args:
            recipe: Its recipe.
            folder: Its directory.
            outcome: How it ended.
            skipped: A checkpoint that can't have been used, which must have been said.
            may_refuse: Whether an error is a good end, too: only where files were changed behind its back.
            kills: Processes that were killed before.
        """
        if outcome.code in REFUSALS and may_refuse:
            return self.refusal(outcome, kills)
        if outcome.code != 0:
            return Verdict("wrong", f"exit {outcome.code}: {outcome.said[-600:]}", kills)
        left = [
            path.name for path in folder.rglob(".*") if path.name.startswith((".tmp-", ".old-", ".trash-"))
        ]
        found = digests(folder)
        differ = [
            name
            for name in found.keys() | self.unbroken[recipe]
            if found.get(name) != self.unbroken[recipe].get(name)
        ]
        if differ or left:
            return Verdict("wrong", f"differs in {sorted(differ)}, left {left}: {outcome.said[-300:]}", kills)
        if skipped and skipped not in outcome.said:
            return Verdict("wrong", f"went on without a word of {skipped}: {outcome.said[-300:]}", kills)
        return Verdict("fell back" if skipped else "identical", "", kills)

    @staticmethod
    def refusal(outcome: Outcome, kills: int = 0) -> Verdict:
        """Judge an error: one line for users."""
        lines = [line for line in outcome.said.splitlines() if "error:" in line]
        if outcome.code not in REFUSALS or len(lines) != 1 or "Traceback" in outcome.said:
            return Verdict(
                "wrong", f"exit {outcome.code} with {len(lines)} errors: {outcome.said[-600:]}", kills
            )
        return Verdict("refused", f"exit {outcome.code}: {lines[0].partition('error: ')[2]}", kills)


def damaged_checkpoints(folder: Path) -> list[str]:
    """Problems of what is committed in a run."""
    steps = (int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*"))
    return [
        problem for step in sorted(steps) for problem in verify_dir(folder / "checkpoints" / step_name(step))
    ]


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Args:
        kind: What is done to the run; the table has a line for each.
        name: Unique.
        act: Does it, and judges.
    """

    kind: str
    name: str
    act: Callable[[], Verdict]


def run_all(
    trials: Iterable[Trial], work: Path, at_once: int, progress: Callable[[], None]
) -> list[tuple[Trial, Verdict]]:
    """Run trials in forked processes, ``at_once`` at a time."""
    waiting, running, done = list(reversed(list(trials))), {}, []
    while waiting or running:
        while waiting and len(running) < at_once:
            trial = waiting.pop()
            running[_begin(trial, _file(work, trial))] = trial
        pid, status = os.wait()
        trial = running.pop(pid)
        file = _file(work, trial)
        found = (
            json.loads(file.read_bytes())
            if file.is_file()
            else ["wrong", f"the trial itself ended with {status}", 0]
        )
        done.append((trial, Verdict(*found)))
        progress()
    return done


def _file(work: Path, trial: Trial) -> Path:
    return work / f"{trial.name.replace('/', '-')}.verdict.json"


def _begin(trial: Trial, file: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        verdict = trial.act()
    except BaseException:  # noqa: BLE001 - whatever happens is the verdict
        verdict = Verdict("wrong", traceback.format_exc()[-1500:])
    file.write_text(json.dumps(verdict), encoding="utf-8")
    os._exit(0)


def progress_on(stream: TextIO, count: int) -> Callable[[], None]:
    """Tell how many trials are done."""
    done, began, is_terminal = [0], time.monotonic(), stream.isatty()

    def tell() -> None:
        done[0] += 1
        if is_terminal or done[0] % 50 == 0 or done[0] == count:
            end = "\r" if is_terminal and done[0] < count else "\n"
            print(
                f"{done[0]}/{count} trials, {time.monotonic() - began:.0f} s",
                end=end,
                file=stream,
                flush=True,
            )

    return tell
