"""The one change that would help most, found by predicting each that there is.

What leaves the adapter as it would be (beyond rounding) is preferred: it costs nothing but the change. What
is learned from fewer layers, rows or digits is proposed where it saves much more, and named as such.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_kit.data.row_file import lengths_of
from lora_kit.data.types import Example
from lora_kit.errors import LoraKitError
from lora_kit.planning.case import Case
from lora_kit.planning.flops import model_sizes
from lora_kit.planning.outlook import Change, Memory
from lora_kit.planning.work import Chosen
from lora_kit.recipe.load import yaml_value
from lora_kit.recipe.schema import Recipe

BUDGETS = (256, 512, 1024, 2048, 4096)
UPPER = 8  # layers of `last-8`
LONG_SECONDS = 12 * 3600.0  # from here on, fewer rows are a thought
WORTH, WORTH_MORE = 0.05, 0.10  # gains of time below these are not worth a change, nor another adapter
SPARE = 0.05  # of the room; with less headroom, memory is what helps


@dataclass(frozen=True, slots=True)
class _Idea:
    """Something to try.

    Args:
        values: By key.
        same_result: Whether the adapter stays what it would be, beyond rounding.
        why: What it does, in words.
        rows: Rows to train on, if not all of them.
    """

    values: dict[str, Any]
    same_result: bool
    why: str
    rows: Sequence[Example] | None = None


def all_changes(case: Case, predict: Callable[[Case], tuple[float, float]], seconds: float) -> list[Change]:
    """Predict everything that there is to change, least time first.

    Args:
        case: The run as it is.
        predict: A case -> likely seconds and bytes.
        seconds: Likely, as it is.
    """
    found = []
    for idea in _ideas(case, seconds):
        rows = {} if idea.rows is None else {"train": idea.rows}
        try:
            time, memory = predict(case.other(changed(case.recipe, idea.values), **rows))
        except LoraKitError:  # too few steps for the warm-up, targets that are not there
            continue
        overrides = tuple(f"{key}={yaml_value(value)}" for key, value in idea.values.items())
        found.append(Change(overrides, time, memory, idea.same_result, idea.why))
    return sorted(found, key=lambda change: change.seconds)


def changed(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """Return a recipe with other values, by dotted key."""
    for name, value in values.items():
        section, _, key = name.partition(".")
        part = getattr(recipe, section).model_copy(update={key: value})
        recipe = recipe.model_copy(update={section: part})
    return recipe


def _ideas(case: Case, seconds: float) -> Iterator[_Idea]:
    recipe = case.recipe
    asked = recipe.train.micro_batch_tokens
    for tokens in BUDGETS if asked != "auto" else ():
        if tokens != asked:
            why = f"computes {'more' if tokens > case.budget() else 'fewer'} tokens at once"
            yield _Idea({"train.micro_batch_tokens": tokens}, same_result=True, why=why)
    if recipe.engine.memory == "standard":
        why = "keeps the layers' inputs only and computes the rest again"
        yield _Idea({"engine.memory": "low"}, same_result=True, why=why)
    if recipe.engine.share_prefixes == "off" and not recipe.lora.dropout and case.family.flattened:
        why = "computes what rows begin with together once"
        yield _Idea({"engine.share_prefixes": "auto"}, same_result=True, why=why)
    if recipe.quantization.method == "none" and getattr(recipe.lora, "init", "default") == "default":
        yield _Idea({"quantization.method": "nf4"}, same_result=False, why="holds the base in 4 bits")
    if recipe.lora.layers == "all" and model_sizes(case.config).layers > UPPER:
        why = "puts adapters into the upper layers only: nothing goes back through those below"
        yield _Idea({"lora.layers": f"last-{UPPER}"}, same_result=False, why=why)
    yield from _fewer_rows(case, seconds)


def _fewer_rows(case: Case, seconds: float) -> Iterator[_Idea]:
    lengths = lengths_of(case.train)
    usual = int(np.quantile(lengths, 0.95))
    if lengths.max() > 1.5 * usual and len(lengths) > 20:
        kept = Chosen(case.train, np.flatnonzero(lengths <= usual))
        why = f"leaves out the longest {len(lengths) - len(kept):,} of {len(lengths):,} rows"
        values = {"data.max_tokens": usual, "data.overlong": "drop"}
        yield _Idea(values, same_result=False, why=why, rows=kept)
    if seconds > LONG_SECONDS and case.recipe.train.steps is None:
        half = len(case.train) // 2
        why = "learns from half of the rows"
        yield _Idea({"data.limit": half}, same_result=False, why=why, rows=case.train[:half])


def best_change(changes: Iterable[Change], seconds: float, memory: Memory) -> Change | None:
    """Choose what helps most.

    Where memory is short, it is what makes the run fit at the least time; else what saves the most time and
    fits. What leaves the adapter as it is wins unless another change saves twice as much.

    Args:
        changes: What was predicted.
        seconds: Likely, as the recipe is.
        memory: The same.
    """
    most = memory.room * (1 - SPARE)
    fitting = [change for change in changes if change.memory_bytes <= most]
    if memory.need.likely > most:
        lower = [change for change in fitting if change.memory_bytes < memory.need.likely]
        return min(lower, key=lambda change: (not change.same_result, change.seconds), default=None)
    same = _quickest(fitting, seconds, same_result=True)
    other = _quickest(fitting, seconds, same_result=False)
    if other and seconds - other.seconds >= 2 * (seconds - same.seconds if same else 0.0):
        return other
    return same


def _quickest(changes: Iterable[Change], seconds: float, *, same_result: bool) -> Change | None:
    least = WORTH if same_result else WORTH_MORE
    worth = [
        one for one in changes if one.same_result == same_result and one.seconds <= (1 - least) * seconds
    ]
    return min(worth, key=lambda change: change.seconds, default=None)
