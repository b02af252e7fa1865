"""Checkpoints: committed, hashed, verified, and only then is an older one removed.

The newest is found by its number and its manifest, never by time or by a pointer file.
What is damaged is skipped with its reason; what is whole but belongs to another recipe,
data set, base or machine is refused, for going on from it would give a result that no
unbroken run gives (exact resume as in MosaicML Composer's test_resumption, plus hashes).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lora_kit.artifacts.commit import committed_dir, discard, failpoint, write_json
from lora_kit.artifacts.disk import disk_errors
from lora_kit.artifacts.manifest import MANIFEST, file_sha256, read_manifest, read_object, verify_dir
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.artifacts.tensor_file import (
    nonfinite_names,
    read_tensors,
    save_tensors,
    shorten_names,
    tensor_bytes,
)
from lora_kit.errors import (
    DataError,
    DivergedError,
    LoraKitError,
    MachineError,
    ModelError,
    Problem,
    RecipeError,
)

ADAPTER = "adapter.safetensors"
OPTIMIZER = "optimizer.safetensors"
PROGRESS = "state.json"
_NAME = re.compile(r"step-(\d{6,})")
_HEADROOM_BYTES = 1 << 20

# Which error a differing identity key is; every other key describes the machine.
_ERRORS: dict[str, tuple[type[LoraKitError], str]] = {
    "training_fingerprint": (RecipeError, "undo the change in the recipe, or choose another --run-dir"),
    "data_fingerprint": (DataError, "put the data back as they were, or choose another --run-dir"),
    "base_fingerprint": (ModelError, "use the base that the run began with, or choose another --run-dir"),
    "encoder_fingerprint": (ModelError, "use the tokenizer and template that the run began with"),
    "tokenizer_fingerprint": (ModelError, "use the tokenizer that the run began with"),
    "template_fingerprint": (ModelError, "use the template that the run began with"),
}


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """All that training needs to go on as if it had never stopped.

    Args:
        step: Optimizer steps that are done.
        adapter: Trainable tensors by PEFT's names.
        optimizer: Optimizer and random-number tensors by name.
        progress: JSON: schedule, data position, offset of the metrics, best loss ...
        identity: What the numbers depend on: fingerprints, versions, threads.
        inexact: What differed on the way here when a resume was allowed although it can't be exact;
            empty for an exact run. Pass it on when saving: it marks the run for ever.
    """

    step: int
    adapter: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    progress: dict[str, Any]
    identity: dict[str, str]
    inexact: tuple[str, ...] = ()


def step_name(step: int) -> str:
    """``step-000123``."""
    return f"step-{step:06d}"


def saved_steps(run: RunDir) -> list[int]:
    """Steps of which there is a directory, whole or not, in ascending order."""
    if not run.checkpoints.is_dir():
        return []
    names = (_NAME.fullmatch(path.name) for path in run.checkpoints.iterdir() if path.is_dir())
    return sorted(int(name[1]) for name in names if name)


def save_checkpoint(run: RunDir, state: CheckpointState) -> Path:
    """Commit a checkpoint, read it back, and drop those of an abandoned future (greater steps).

    Returns:
        Its directory. Older checkpoints are untouched: ``rotate`` comes after.

    Raises:
        DivergedError: A tensor is not finite; nothing is written.
        MachineError: Disk full, read-only, gone, or not giving back what was written.
    """
    _require_finite(state)
    target = run.checkpoints / step_name(state.step)
    identity = {"step": state.step, "previous": _previous_hash(run, state.step), "run": state.identity}
    needed_bytes = tensor_bytes(state.adapter) + tensor_bytes(state.optimizer) + _HEADROOM_BYTES
    with committed_dir(target, identity=identity, needed_bytes=needed_bytes) as folder:
        save_tensors(folder / ADAPTER, state.adapter)
        failpoint("checkpoint.after_adapter")
        save_tensors(folder / OPTIMIZER, state.optimizer)
        failpoint("checkpoint.after_optimizer")
        write_json(folder / PROGRESS, {"inexact": state.inexact, "progress": state.progress})
        failpoint("checkpoint.after_state")
    with disk_errors(target):
        failpoint("checkpoint.after_commit")
        _require_readable(target)
        failpoint("checkpoint.after_verify")
        for step in saved_steps(run):
            if step > state.step:
                discard(run.checkpoints / step_name(step))
    return target


def _require_readable(target: Path) -> None:
    problems = verify_dir(target)
    if problems:
        raise MachineError(f"reads back otherwise than written: {problems[0]}", where=str(target))


def _require_finite(state: CheckpointState) -> None:
    for kind, tensors in (("adapter", state.adapter), ("optimizer state", state.optimizer)):
        names = nonfinite_names(tensors)
        if names:
            raise DivergedError(f"step {state.step}: {kind} is not finite in {shorten_names(names)}")


def _previous_hash(run: RunDir, step: int) -> str:
    """Hash of the manifest before this one; chains the checkpoints. Empty for the first."""
    older = [run.checkpoints / step_name(other) / MANIFEST for other in saved_steps(run) if other < step]
    return file_sha256(older[-1]) if older and older[-1].is_file() else ""


def read_checkpoint(run: RunDir, step: int) -> CheckpointState:
    """Read one checkpoint, after checking every byte and every number of it.

    Raises:
        ModelError: Missing or damaged, with each reason.
        MachineError: Written by a version of lora_kit with another format.
    """
    folder = run.checkpoints / step_name(step)
    problems = verify_dir(folder)
    if problems:
        raise ModelError.collect([Problem(text, where=str(folder)) for text in problems])
    manifest = read_manifest(folder)["identity"]
    if manifest["step"] != step:
        raise ModelError(f"holds step {manifest['step']}, not {step}", where=str(folder))
    state = read_object(folder / PROGRESS)
    return CheckpointState(
        step=step,
        adapter=read_tensors(folder / ADAPTER),
        optimizer=read_tensors(folder / OPTIMIZER),
        progress=state["progress"],
        identity=manifest["run"],
        inexact=tuple(state["inexact"]),
    )


def newest_valid(
    run: RunDir, identity: Mapping[str, str], *, allow_inexact: bool = False
) -> tuple[CheckpointState | None, list[str]]:
    """Find where to go on from.

    Args:
        run: Where to look.
        identity: What the numbers depend on now; must equal what they depended on then.
        allow_inexact: Go on although the machine differs; the state's ``inexact`` then says in what.

    Returns:
        The newest whole checkpoint (None: start from the beginning), and why newer ones were skipped,
        such as ``"step-000120: adapter.safetensors: sha256 differs"``.

    Raises:
        RecipeError, DataError, ModelError: The checkpoint belongs to another recipe, data set or base.
        MachineError: Only the machine differs (versions, threads ...) and ``allow_inexact`` is False.
    """
    skipped: list[str] = []
    for step in reversed(saved_steps(run)):
        try:
            state = read_checkpoint(run, step)
        except ModelError as error:
            skipped += [_reason(problem, step_name(step)) for problem in error.problems]
            continue
        where = str(run.checkpoints / step_name(step))
        differing = _compare(state.identity, identity, where=where, allow_inexact=allow_inexact)
        return replace(state, inexact=tuple(dict.fromkeys((*state.inexact, *differing)))), skipped
    return None, skipped


def _reason(problem: Problem, name: str) -> str:
    """Shorten a path inside a checkpoint to ``step-000120: file: what is wrong``."""
    file = Path(problem.where).name
    return f"{name}: {problem.found}" if file == name else f"{name}: {file}: {problem.found}"


def _compare(
    saved: Mapping[str, str], current: Mapping[str, str], *, where: str, allow_inexact: bool
) -> list[str]:
    """Refuse what may not differ; return what differs of the machine, if that is allowed."""
    keys = [key for key in {**_ERRORS, **saved, **current} if saved.get(key) != current.get(key)]
    for key in keys:
        if key in _ERRORS:
            raise _ERRORS[key][0].collect(
                [
                    Problem(_difference(saved, current, other), where, other, _ERRORS[other][1])
                    for other in keys
                    if other in _ERRORS
                ]
            )
    if keys and not allow_inexact:
        cure = "an exact resume is impossible; go on with --allow-inexact-resume, or choose another --run-dir"
        raise MachineError.collect(
            [Problem(_difference(saved, current, key), where, key, cure) for key in keys]
        )
    return [f"{key}: {_difference(saved, current, key)}" for key in keys]


def _difference(saved: Mapping[str, str], current: Mapping[str, str], key: str) -> str:
    then, now = (str(values.get(key, "unknown")) for values in (saved, current))
    if key.endswith("_fingerprint"):
        then, now = then[:12], now[:12]
    return f"was {then} when the checkpoint was saved, is {now} now"


def rotate(run: RunDir, keep: int, best_step: int | None) -> None:
    """Delete all but the newest ``keep`` checkpoints and the best; call it after a save returned.

    Args:
        run: Where they lie.
        keep: At least 1.
        best_step: Step of the best checkpoint, kept whatever its age; None if there is none.

    Raises:
        MachineError: The file system refuses.
    """
    assert keep >= 1, "the checkpoint just saved is never rotated away"
    for step in saved_steps(run)[:-keep]:
        if step != best_step:
            discard(run.checkpoints / step_name(step))
