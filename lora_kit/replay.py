"""What `verify` and `reproduce` share: what a run was made with against what is here, and a run once more."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lora_kit.artifacts.adapter import read_adapter
from lora_kit.artifacts.checkpoint import saved_steps, step_name
from lora_kit.artifacts.manifest import read_manifest, read_object
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.data.sources import changed_sources
from lora_kit.errors import LoraKitError, ModelError
from lora_kit.inputs import Inputs, open_inputs, run_base
from lora_kit.recipe.schema import Recipe
from lora_kit.train.deadline_record import read_deadline, write_deadline
from lora_kit.train.observe import Observer
from lora_kit.train.runtime import runtime_identity

CONSEQUENCE = "rows as encoded"  # they move with any layer below them


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Args:
        name: What.
        problems: What is wrong; empty if it holds.
        found: What holds, in words.
    """

    name: str
    problems: tuple[str, ...]
    found: str

    def to_json(self) -> dict[str, Any]:
        """The check as JSON values."""
        return {"name": self.name, "holds": not self.problems, "problems": self.problems, "found": self.found}


def begin_again(run: RunDir, target: Path, *, steps: Iterable[int] = ()) -> RunDir:
    """Make a directory in which a run goes on as it did: on its base, with its token budget.

    Args:
        run: The run.
        target: Does not exist yet.
        steps: Checkpoints that are copied.
    """
    copy = open_run(target)
    for step in steps:
        shutil.copytree(run.checkpoints / step_name(step), copy.checkpoints / step_name(step))
    if run.token_budget.is_file():
        shutil.copyfile(run.token_budget, copy.token_budget)
    if (deadline := read_deadline(run)) is not None:  # by what was decided, not by the clock
        write_deadline(copy.deadline, replace(deadline, finished=True))
    before = {key: value for key, value in run.read_state().items() if key in {"name", "base_revision"}}
    copy.update_state(**before)
    return copy


def first_difference(ours: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """Name of the first tensor that differs in any bit; empty if none does."""
    same = (name for name in ours.keys() & wanted.keys() if torch.equal(ours[name], wanted[name]))
    return min((ours.keys() | wanted.keys()) - {*same}, default="")


def recorded(run: RunDir) -> dict[str, str]:
    """What a run depended on, as its adapter or a checkpoint says.

    Raises:
        ModelError: It has neither.
    """
    with suppress(LoraKitError):
        provenance = read_adapter(run.adapter).provenance
        names = ("encoder_fingerprint", "tokenizer_fingerprint", "data_fingerprint")
        return {
            "base_fingerprint": provenance["base"]["fingerprint"],
            "template_fingerprint": provenance["template"]["fingerprint"],
            **{name: provenance[name] for name in names},
            **provenance["runtime"],
        }
    for step in reversed(saved_steps(run)):
        with suppress(LoraKitError):
            found: dict[str, str] = read_manifest(run.checkpoints / step_name(step))["identity"]["run"]
            return found
    raise ModelError(
        "has neither an adapter nor a whole checkpoint, so nothing says what it was made with",
        where=str(run.path),
    )


class Layers:
    """Compares what a run recorded with what is here.

    Args:
        run: The run.
        recipe: Its recipe.
        was: What it recorded.
        observer: Whom to tell.
    """

    def __init__(self, run: RunDir, recipe: Recipe, was: Mapping[str, str], observer: Observer) -> None:
        self.run = run
        self.recipe = recipe
        self.was = was
        self.observer = observer
        self.inputs: Inputs | None = None

    def compare(self) -> Iterator[Check]:
        """Yield each layer."""
        looks: dict[str, Callable[[], str]] = {
            "base": self._base,
            "data": self._data,
            "template and tokenizer": self._encoder,
            CONSEQUENCE: self._rows,
        }
        for name, look in looks.items():
            self.observer.phase(f"comparing {name}")
            try:
                yield Check(name, (), look())
            except LoraKitError as error:
                yield Check(name, tuple(str(problem) for problem in error.problems), "")
        here = runtime_identity()
        for key, name in (("versions", "libraries"), ("threads", "threads"), ("hardware", "hardware")):
            was, now = self.was.get(key, "unknown"), here.get(key, "unknown")
            yield Check(name, () if was == now else (_changed(was, now),), now)

    def _base(self) -> str:
        files = run_base(self.recipe, self.run)
        self._same("base_fingerprint", files.fingerprint)
        return f"{self.recipe.base.model}, every tensor as it was"

    def _data(self) -> str:
        """The files themselves, whatever is made of them."""
        self.inputs = open_inputs(self.recipe, run_base(self.recipe, self.run))
        before = read_object(self.run.data_report) if self.run.data_report.is_file() else {}
        sources = self.inputs.data.report.to_json()["sources"]
        if changed := changed_sources(before, sources):
            raise ModelError(f"not what it was: {', '.join(changed)}", where=str(self.recipe.data.train))
        return f"{len(sources)} sources, every byte as it was"

    def _encoder(self) -> str:
        encoder = self._opened().encoder
        for name, now in (("tokenizer", encoder.tokenizer), ("template", encoder.template)):
            if f"{name}_fingerprint" in self.was:
                self._same(f"{name}_fingerprint", now.fingerprint)
        self._same("encoder_fingerprint", encoder.fingerprint)
        return "the same, and the same system prompt"

    def _rows(self) -> str:
        self._same("data_fingerprint", self._opened().data.fingerprint)
        return "the same ids, in the same order"

    def _opened(self) -> Inputs:
        if self.inputs is None:
            raise ModelError("can't be compared, for the base or the rows could not be opened")
        return self.inputs

    def _same(self, key: str, now: str) -> None:
        was = self.was.get(key, "unknown")
        if was != now:
            raise ModelError(f"{key.removesuffix('_fingerprint')}: {_changed(was[:12], now[:12])}")


def _changed(was: str, now: str) -> str:
    """Tell two values apart; of lists such as versions, only what differs."""
    before, here = (set(text.split(", ")) for text in (was, now))
    if before & here:
        was, now = (", ".join(sorted(these)) for these in (before - here, here - before))
    return f"was {was or 'absent'}, is {now or 'absent'} here"
