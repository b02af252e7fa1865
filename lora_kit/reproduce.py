"""Does a run come out the same here? Its first steps are made again, and each layer below them is compared.

A run can be repeated to the bit where base, encoder, rows, versions, threads and kind of processor are
the same. Where they are not, its numbers drift, and the question is which of these moved. So each is compared
by itself, and then the first steps are trained whatever was found, to say how much it matters.
"""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.artifacts.checkpoint import read_checkpoint, saved_steps
from lora_kit.artifacts.metrics_log import WALL_CLOCK_FIELDS, read_metrics
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.errors import LoraKitError, RecipeError
from lora_kit.recipe.load import load_resolved
from lora_kit.recipe.schema import Recipe
from lora_kit.replay import CONSEQUENCE, Check, Layers, begin_again, first_difference, recorded
from lora_kit.train.observe import Observer, StepRecord
from lora_kit.train_run import train_recipe

STEPS = 10


@dataclass(frozen=True, slots=True)
class Repeated:
    """The steps that were made again.

    Args:
        steps: How many.
        first_different: The first step that came out otherwise; None if all are equal to the bit.
        fields: What of it differs.
        rows: Its rows whose loss or length differs.
        largest: Largest difference of a loss, in nats per token.
        checkpoint: What the checkpoint of the last repeated step says; empty if the run has none there.
    """

    steps: int
    first_different: int | None
    fields: tuple[str, ...]
    rows: tuple[str, ...]
    largest: float
    checkpoint: str

    @property
    def equal(self) -> bool:
        """Whether all came out the same, to the bit."""
        return self.first_different is None and not self.checkpoint.startswith("differs")

    def to_json(self) -> dict[str, Any]:
        """The steps as JSON values."""
        return {
            "steps": self.steps,
            "equal": self.equal,
            "first_different_step": self.first_different,
            "fields": self.fields,
            "rows": self.rows,
            "largest_loss_difference": self.largest,
            "checkpoint": self.checkpoint or None,
        }


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of it.

    Args:
        layers: In their order, from the bottom.
        repeated: The steps; None if none could be made.
        not_repeated: Why none could be made.
    """

    layers: tuple[Check, ...]
    repeated: Repeated | None
    not_repeated: str

    @property
    def moved(self) -> list[str]:
        """Names of the layers that are not what they were, without what only follows from them."""
        names = [layer.name for layer in self.layers if layer.problems]
        return [name for name in names if name != CONSEQUENCE] or names


def reproduce_run(path: Path, observer: Observer, *, steps: int = STEPS) -> Reproduction:
    """Make the first steps of a run again, in a directory that is removed afterwards. The run is only read.

    Args:
        path: The run directory; the run may be cut or at work.
        observer: Whom to tell.
        steps: How many steps at most.

    Raises:
        RecipeError: No run, or one that made no step.
        ModelError: The run holds no record of what it was made with.
    """
    run = open_run(path, create=False)
    lines = read_metrics(run.metrics)[:steps]
    if not lines:
        raise RecipeError("the run made no step yet", where=str(path), cure=f"lora-kit train {path}")
    recipe = load_resolved(run.recipe)
    quiet = recipe.engine.model_copy(update={"trackers": (), "audit": "off"})  # no part of what is trained
    recipe = recipe.model_copy(update={"engine": quiet})
    layers = tuple(Layers(run, recipe, recorded(run), observer).compare())
    try:
        return Reproduction(layers, _repeat(run, recipe, lines, observer), "")
    except LoraKitError as error:
        return Reproduction(layers, None, "; ".join(str(problem) for problem in error.problems))


class _EnoughError(Exception):
    """The steps that were asked for are made."""


class _Until:
    """An observer that passes phases on, remembers the lines, and ends the run after some steps."""

    def __init__(self, observer: Observer, steps: int) -> None:
        self.observer = observer
        self.steps = steps
        self.lines: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any method of Observer
        return getattr(self.observer, name)

    def stepped(self, record: StepRecord) -> None:
        """Remember the line; the last one ends the run when its checkpoint is there, or in the next step."""
        if len(self.lines) == self.steps:
            raise _EnoughError
        self.lines.append(record.to_json())
        self.observer.stepped(record)

    def saved(self, step: int) -> None:
        """End the run if this was the last step."""
        if step >= self.steps:
            raise _EnoughError


def _repeat(run: RunDir, recipe: Recipe, lines: list[dict[str, Any]], observer: Observer) -> Repeated:
    with tempfile.TemporaryDirectory(prefix="lora-kit-reproduce-") as scratch:
        again = begin_again(run, Path(scratch) / run.path.name)
        until = _Until(observer, len(lines))
        with suppress(_EnoughError):
            train_recipe(recipe, again.path, until)
        checkpoint = _compare_checkpoint(run, again, len(lines))
    pairs = list(zip(lines, until.lines, strict=True))
    losses = [(line["loss"], ours["loss"]) for line, ours in pairs]
    first = next((index for index, pair in enumerate(pairs) if _fields(*pair)), None)
    return Repeated(
        len(lines),
        None if first is None else first + 1,
        () if first is None else tuple(_fields(*pairs[first])),
        () if first is None else tuple(_rows_that_differ(*pairs[first])),
        max(abs(was - now) for was, now in losses),
        checkpoint,
    )


def _fields(line: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    keys = sorted(key for key in line.keys() | ours.keys() if key not in WALL_CLOCK_FIELDS)
    return [key for key in keys if _plain(line.get(key)) != _plain(ours.get(key))]


def _plain(value: object) -> object:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _rows_that_differ(line: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Origins of the rows of a step that are others, or have another loss or length."""
    if "row_nats" not in line or len(line["rows"]) != len(ours["rows"]):
        return []
    names = ("rows", "row_tokens", "row_nats")
    pairs = zip(
        zip(*(line[name] for name in names), strict=True),
        zip(*(ours[name] for name in names), strict=True),
        strict=True,
    )
    return [now[0] for was, now in pairs if was != now]


def _compare_checkpoint(run: RunDir, again: RunDir, steps: int) -> str:
    """Compare the weights after a step of which both have a checkpoint."""
    common = [step for step in saved_steps(run) if step in saved_steps(again) and step <= steps]
    if not common:
        return ""
    ours, theirs = (read_checkpoint(each, common[-1]) for each in (again, run))
    different = first_difference(ours.adapter, theirs.adapter) or first_difference(
        ours.optimizer, theirs.optimizer
    )
    return (
        f"differs at step {common[-1]} in {different}"
        if different
        else f"equal to the bit at step {common[-1]}"
    )
