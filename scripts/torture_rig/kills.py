"""SIGKILL: at random moments, at every failpoint, and around the choice of a token budget."""

import os
import random
import signal
import time
from pathlib import Path

from lora_kit.artifacts.commit import FAILPOINTS
from lora_kit.train import budget, rehearse
from lora_kit.train import step as step_module
from torture_rig.processes import digests, finish, start, train
from torture_rig.trials import Rig, Trial, Verdict

KILLED = -signal.SIGKILL
COMMITS = 6  # of the recipe "dropout": five checkpoints, then the adapter
ONCE = (  # in a process
    "metrics.after_truncate",
    "run.after_create",
    "run.before_owner",
    "adapter.after_weights",
    "discard.after_trash",
)
NARROW, WIDE = 32, 256  # budgets that split the rows differently


def random_kills(rig: Rig, count: int, seed: int) -> list[Trial]:
    """Kill a run after a random time; every third is killed twice, every second fills a cache of its own."""

    def trial(number: int) -> Trial:
        chance = random.Random(f"{seed} {number}")
        recipe = ("dropout", "prefixes")[number % 2]
        return Trial("random kill", f"random-{number}", lambda: _kill(rig, recipe, number, chance))

    return [trial(number) for number in range(count)]


def _kill(rig: Rig, recipe: str, number: int, chance: random.Random) -> Verdict:
    path = rig.recipes[recipe]
    for attempt in range(30):  # one that was done before its time came does not count
        folder = rig.work / f"random-{number}-{attempt}"
        cache = {"LORA_KIT_CACHE": str(folder) + ".cache"} if number % 4 > 1 else {}
        codes = []
        for _ in range(1 + (number % 3 == 0)):
            pid = start(path, folder, **cache)
            time.sleep(chance.uniform(0.02, 1.0) * rig.seconds[recipe])
            os.kill(pid, signal.SIGKILL)
            codes.append(finish(pid, folder).code)
        if codes[0] == KILLED:
            kills = codes.count(KILLED)
            return rig.judge(recipe, folder, train(path, folder, **cache), kills=kills)
    return Verdict("wrong", "it was never quick enough to kill")


def failpoints(rig: Rig, turns: tuple[int, ...]) -> list[Trial]:
    """Kill a run at each failpoint, the first time that it gets there and later."""
    return [
        Trial("failpoint", f"{point}-{turn}", lambda point=point, turn=turn: _at_failpoint(rig, point, turn))
        for point in FAILPOINTS
        for turn in turns
    ]


def _at_failpoint(rig: Rig, point: str, turn: int) -> Verdict:
    recipe = "dropout" if turn == 1 or point == "directory.after_old" else "prefixes"
    path, folder = rig.recipes[recipe], rig.work / f"{point}-{turn}"
    kills = 0
    if (
        point == "directory.after_old"
    ):  # only where one is replaced: the adapter of a run killed before it ended
        kills += (
            train(path, folder, LORA_KIT_FAILPOINT=f"directory.after_rename@{COMMITS}=kill").code == KILLED
        )
        turn = 1
    if point in ONCE:
        turn = 1
    code = train(path, folder, LORA_KIT_FAILPOINT=f"{point}@{turn}=kill").code
    if code != KILLED:
        return Verdict("wrong", f"exit {code}: it never got there")
    return rig.judge(recipe, folder, train(path, folder), kills=kills + 1)


def token_budgets(rig: Rig) -> list[Trial]:
    """Kill a run just before and just after its budget is on disk; what is on disk counts."""
    return [
        Trial("token budget", f"budget-{point}", lambda point=point: _around_budget(rig, point))
        for point in ("file.after_write", "file.after_rename")
    ] + [Trial("token budget", "budget-healed", lambda: _healed(rig))]


def prefer(tokens: int, point: str = "") -> None:
    """In a child: choose a budget whatever is measured, and die where it is written."""
    rehearse.BUDGETS = (NARROW, WIDE)
    rehearse.choose = lambda found, **_: next(m for m in found if m.tokens >= tokens)
    true_write = budget.Healer._write

    def write(self: budget.Healer, chosen: budget.TokenBudget) -> None:
        os.environ["LORA_KIT_FAILPOINT"] = f"{point}=kill" if point else ""
        true_write(self, chosen)

    budget.Healer._write = write


def _around_budget(rig: Rig, point: str) -> Verdict:
    path, folder = rig.recipes["auto"], rig.work / f"budget-{point}"
    ends = {}
    for tokens in (NARROW, WIDE):
        whole = rig.work / f"budget-{point}-{tokens}"
        train(path, whole, lambda tokens=tokens: prefer(tokens))
        ends[tokens] = _without_measurements(whole)
    killed = train(path, folder, lambda: prefer(NARROW, point)).code
    written = (folder / "token_budget.json").is_file()
    outcome = train(path, folder, lambda: prefer(WIDE))
    expected = ends[NARROW if written else WIDE]
    well = killed == KILLED and outcome.code == 0 and written == (point == "file.after_rename")
    if not well or ends[NARROW] == ends[WIDE] or _without_measurements(folder) != expected:
        return Verdict("wrong", f"killed {killed}, written {written}, {outcome}", 1)
    return Verdict("identical", "", 1)


def _without_measurements(folder: Path) -> dict[str, str]:
    return {name: value for name, value in digests(folder).items() if name != "token budget"}


def fail_at(call: int) -> None:
    """In a child: let the allocation of one micro-batch fail, counted from the run's first."""
    true_sum, calls = step_module.sum_nats, [0]

    def sum_nats(*arguments: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return true_sum(*arguments, **options)

    step_module.sum_nats = sum_nats


def _healed(rig: Rig) -> Verdict:
    """One micro-batch a step: the third allocation fails in step 3 and is healed; then the run is killed."""
    path, whole, folder = rig.recipes["whole"], rig.work / "healed-whole", rig.work / "healed"
    train(path, whole, lambda: fail_at(3))
    killed = train(
        path, folder, lambda: fail_at(3), LORA_KIT_FAILPOINT="checkpoint.after_adapter@3=kill"
    ).code
    outcome = train(path, folder)
    if (
        killed != KILLED
        or outcome.code != 0
        or digests(folder) != digests(whole)
        or "token budget" not in digests(whole)
    ):
        return Verdict("wrong", f"killed {killed}, {outcome}", 1)
    return Verdict("identical", "", 1)
