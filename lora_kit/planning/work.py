"""How much there is to compute: a run's own micro-batches counted, not an average row times their number."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

from lora_kit.data.collate import MicroBatch
from lora_kit.data.layout import Layout
from lora_kit.data.row_file import Ints, lengths_of, spread
from lora_kit.data.types import Example
from lora_kit.train.plan import TrainPlan

SAMPLED = 192  # steps that are laid out, evenly spread; a longer run is these, multiplied


class Work(NamedTuple):
    """What some micro-batches hold; floats, because a sample is multiplied.

    Args:
        steps: Optimizer steps.
        batches: Micro-batches.
        tokens: Tokens that are computed; shared prefixes count once, padding counts.
        trained: Targets.
        cells: Pairs of a query and a key in an attention matrix.
    """

    steps: float = 0.0
    batches: float = 0.0
    tokens: float = 0.0
    trained: float = 0.0
    cells: float = 0.0

    def times(self, factor: float) -> "Work":
        """Return so much of it."""
        return Work(*(factor * count for count in self))


def total(parts: Iterable[Work]) -> Work:
    """Add up work; nothing if there is none."""
    columns = zip(Work(), *parts, strict=True)
    return Work(*(sum(column) for column in columns))


def work_of(batch: MicroBatch) -> Work:
    """Count a micro-batch; its step is not in it."""
    if batch.segments:
        cells = sum(_cells(batch.segments, batch.parents))
    else:
        rows, width = batch.input_ids.shape
        cells = rows * width * width
    return Work(0, 1, batch.input_ids.numel(), len(batch.targets), cells)


def _cells(lengths: Sequence[int], parents: Sequence[int]) -> Iterator[int]:
    """Causal: a token sees those of its segment up to itself, and all of the segments that it continues."""
    seen: list[int] = []
    for length, parent in zip(lengths, parents, strict=True):
        before = seen[parent] if parent >= 0 else 0
        seen.append(before + length)
        yield length * before + length * (length + 1) // 2


class Chosen(Sequence[Example]):
    """Some of the rows of a mapped file, each made when it is asked for.

    Args:
        rows: All of them.
        places: Which, in order.
    """

    def __init__(self, rows: Sequence[Example], places: Ints) -> None:
        self._rows = rows
        self._places = places
        self.lengths = lengths_of(rows)[places]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> "Chosen": ...
    def __getitem__(self, at: int | slice) -> "Example | Chosen":
        if isinstance(at, slice):
            return Chosen(self._rows, self._places[at])
        return self._rows[int(self._places[at])]


class Counted(NamedTuple):
    """The work of a whole run.

    Args:
        training: All steps.
        validation: The held-out rows, once.
        heaviest: The micro-batch with the most tokens.
    """

    training: Work
    validation: Work
    heaviest: Work


def count_run(
    plan: TrainPlan, train: Sequence[Example], validation: Sequence[Example], layout: Layout, tokens: int
) -> Counted:
    """Lay out a run's steps as training will, and count.

    Args:
        plan: Which rows at which step.
        train: Rows to train on.
        validation: Rows that are held out.
        layout: How rows become micro-batches.
        tokens: Most tokens of a micro-batch.
    """
    steps = sampled_steps(plan.steps)
    laid = [
        work_of(batch) for step in steps for batch in laid_out(window_rows(plan, train, step), layout, tokens)
    ]
    held = spread(validation, SAMPLED)
    checked = total(work_of(batch) for batch in laid_out(held, layout, tokens)) if held else Work()
    training = total([*laid, Work(steps=len(steps))]).times(plan.steps / len(steps))
    checked = checked.times(len(validation) / max(len(held), 1))
    return Counted(training, checked, max(laid, key=lambda work: work.tokens))


def sampled_steps(steps: int) -> list[int]:
    """Return at most SAMPLED steps of 1..steps, evenly spread."""
    count = min(steps, SAMPLED)
    return [1 + index * steps // count for index in range(count)]


def window_rows(plan: TrainPlan, train: Sequence[Example], step: int) -> list[Example]:
    """Return the rows of a step."""
    return [train[row] for row in plan.window(step).rows]


def laid_out(rows: Sequence[Example], layout: Layout, tokens: int) -> list[MicroBatch]:
    """Return the micro-batches of some rows."""
    return layout.micro_batches(rows, layout.plan(rows, tokens))
