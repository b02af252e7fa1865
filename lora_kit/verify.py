"""Is a run what it says it is? Everything is hashed again, and its last steps are trained again, bit for bit.

A resumed run equals an unbroken one, so a run can be audited by resuming a copy of it from an older
checkpoint: the same steps, the same adapter and the same log have to come out. What the hashes alone would
not show (a log or an adapter that was put in place, with its hashes made anew) shows there.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_kit.artifacts.adapter import read_adapter
from lora_kit.artifacts.checkpoint import read_checkpoint, saved_steps
from lora_kit.artifacts.metrics_log import read_metrics, stable_digest
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.errors import LoraKitError, ModelError, Problem, RecipeError
from lora_kit.inputs import open_inputs, run_base
from lora_kit.recipe.fingerprint import training_fingerprint
from lora_kit.recipe.load import load_resolved
from lora_kit.replay import Check, begin_again, first_difference
from lora_kit.train.observe import Observer
from lora_kit.train_run import train_recipe


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Args:
        checks: In order.
        not_replayed: Why no step was trained again; empty if some were.
    """

    checks: tuple[Check, ...]
    not_replayed: str

    @property
    def problems(self) -> list[Problem]:
        """What is wrong, one for each."""
        return [Problem(text, where=check.name) for check in self.checks for text in check.problems]


def verify_run(path: Path, observer: Observer, *, replay: bool = True) -> Audit:
    """Audit a finished run. It is locked meanwhile and not changed.

    Args:
        path: The run directory.
        observer: Whom to tell.
        replay: Whether steps are trained again.

    Raises:
        RecipeError: No run, or one that is not finished.
        RunLockedError: A process is at work in it.
    """
    run = open_run(path, create=False)
    if run.read_state().get("status") != "finished":
        cure = f"finish it first: lora-kit train {path}"
        raise RecipeError("the run is not finished", where=str(path), cure=cure)
    with run.lock():
        checks = list(_checks(run, observer))
        if any(check.problems for check in checks):
            return Audit(tuple(checks), "what is on disk is already wrong")
        if not replay:
            return Audit(tuple(checks), "not asked for")
        return _replayed(run, checks, observer)


def _checks(run: RunDir, observer: Observer) -> Iterator[Check]:
    looks: dict[str, Callable[[RunDir], str]] = {
        "checkpoints": _checkpoints,
        "adapter": _adapter,
        "metrics": _metrics,
        "data and base": _inputs,
    }
    for name, look in looks.items():
        observer.phase(f"checking {name}")
        try:
            yield Check(name, (), look(run))
        except LoraKitError as error:
            yield Check(name, tuple(str(problem) for problem in error.problems), "")


def _checkpoints(run: RunDir) -> str:
    steps = saved_steps(run)
    problems: list[Problem] = []
    for step in steps:
        try:
            read_checkpoint(run, step)
        except ModelError as error:
            problems += error.problems
    if problems:
        raise ModelError.collect(problems)
    return f"{len(steps)} checkpoints, every byte as it was committed"


def _adapter(run: RunDir) -> str:
    """The adapter is whole, and is the one of the kept step."""
    saved = read_adapter(run.adapter)
    provenance = saved.provenance
    step = provenance.get("step")
    if provenance.get("training_fingerprint") != training_fingerprint(load_resolved(run.recipe)):
        raise ModelError("belongs to another recipe than the run's", where=str(run.adapter))
    if step not in saved_steps(run):
        return f"whole; the checkpoint of its step {step} is gone, so they were not compared"
    if different := first_difference(saved.tensors(), read_checkpoint(run, step).adapter):
        raise ModelError(f"is not that of step {step}: {different} differs", where=str(run.adapter))
    return f"whole, and equal to step {step} bit for bit"


def _metrics(run: RunDir) -> str:
    lines = read_metrics(run.metrics)
    steps = [line.get("step") for line in lines]
    if steps != list(range(1, len(lines) + 1)):
        raise ModelError("its steps don't count from 1", where=str(run.metrics))
    recorded = read_adapter(run.adapter).provenance.get("metrics_digest")
    if recorded is None:
        return f"{len(lines)} steps; the adapter holds no hash of them"
    if recorded != stable_digest(run.metrics):
        raise ModelError("was changed after the adapter was saved", where=str(run.metrics))
    return f"{len(lines)} steps, as the adapter recorded them"


def _inputs(run: RunDir) -> str:
    """Base, tokenizer, template and rows are those that were trained with."""
    provenance = read_adapter(run.adapter).provenance
    recipe = load_resolved(run.recipe)
    found = open_inputs(recipe, run_base(recipe, run))
    now = {
        "base": (found.files.fingerprint, provenance["base"]["fingerprint"]),
        "tokenizer, template and system prompt": (
            found.encoder.fingerprint,
            provenance["encoder_fingerprint"],
        ),
        "rows": (found.data.fingerprint, provenance["data_fingerprint"]),
    }
    problems = [
        Problem(f"{name}: {is_now[:12]} now, {was[:12]} when it was trained", where=str(run.recipe))
        for name, (is_now, was) in now.items()
        if is_now != was
    ]
    if problems:
        raise ModelError.collect(problems)
    return "base, tokenizer, template and rows are those that it was trained with"


def _replayed(run: RunDir, checks: list[Check], observer: Observer) -> Audit:
    """Resume a copy without its newest checkpoint, and compare what comes out."""
    recipe = load_resolved(run.recipe)
    with tempfile.TemporaryDirectory(prefix="lora-kit-verify-") as scratch:
        copy = Path(scratch) / run.path.name
        first = _copy_back(run, copy)
        observer.phase(f"training again from step {first}")
        try:
            train_recipe(recipe, copy, observer)
        except LoraKitError as error:
            if error.exit_code == 5:
                return Audit(tuple(checks), "; ".join(problem.found for problem in error.problems))
            raise
        again = RunDir(copy)
        problems = []
        ours, theirs = (read_adapter(folder).tensors() for folder in (run.adapter, again.adapter))
        if different := first_difference(ours, theirs):
            problems.append(f"the adapter comes out otherwise: {different} differs")
        if stable_digest(again.metrics) != stable_digest(run.metrics):
            problems.append("the log comes out otherwise")
        steps = len(read_metrics(again.metrics)) - first
    found = f"{steps} steps from step {first}: the same adapter and the same log, bit for bit"
    return Audit((*checks, Check("training again", tuple(problems), "" if problems else found)), "")


def _copy_back(run: RunDir, target: Path) -> int:
    """Copy a run as it was before its newest checkpoint; return the step that it goes on from."""
    older = saved_steps(run)[:-1]
    begin_again(run, target, steps=older)
    for file in (run.recipe, run.data_report, run.metrics):
        shutil.copyfile(file, target / file.name)
    return older[-1] if older else 0
