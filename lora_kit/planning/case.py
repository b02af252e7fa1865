"""A run as its plan sees it: recipe, rows and shapes; and what another recipe for them would take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_kit.data.layout import layout_of
from lora_kit.data.row_file import lengths_of
from lora_kit.data.types import Example
from lora_kit.model.family import Family
from lora_kit.model.predict_memory import PROGRAM, MemoryNeed, predict_memory
from lora_kit.planning.flops import Flops, flops_of
from lora_kit.planning.work import Counted, count_run
from lora_kit.recipe.schema import Recipe, TrainSpec
from lora_kit.train.plan import TrainPlan, plan_training

FULLER, EMPTIER = 1.5, 0.2  # of what is predicted for activations, measured ones are taken to be


@dataclass(frozen=True, slots=True)
class Case:
    """What a prediction is made from.

    Args:
        recipe: The recipe.
        config: Content of the base's config.json.
        family: The architecture's family.
        train: Rows to train on.
        validation: Rows that are held out.
        tokens: Most tokens of a micro-batch where the recipe says ``auto``.
        share: Whether ``engine.share_prefixes`` can be obeyed: rows' tokens are known, not guessed.
    """

    recipe: Recipe
    config: Mapping[str, Any]
    family: Family
    train: Sequence[Example]
    validation: Sequence[Example]
    tokens: int = int(TrainSpec.model_fields["micro_batch_tokens"].default)
    share: bool = True

    def plan(self) -> TrainPlan:
        """Which rows at which step."""
        return plan_training(
            self.recipe.train, rows=len(self.train), has_validation=bool(len(self.validation))
        )

    def budget(self) -> int:
        """Most tokens of a micro-batch."""
        asked = self.recipe.train.micro_batch_tokens
        return self.tokens if asked == "auto" else asked

    def need(self) -> MemoryNeed:
        """Memory by shapes alone."""
        return predict_memory(self.recipe, self.config)

    def flops(self, need: MemoryNeed) -> Flops:
        """Operations of each thing that is counted."""
        return flops_of(self.recipe, self.config, need)

    def count(self) -> Counted:
        """The run's work."""
        shared = self.share and not self.recipe.lora.dropout and self.recipe.engine.share_prefixes == "auto"
        layout = layout_of(flattened=self.family.flattened, share_prefixes=shared)
        return count_run(self.plan(), self.train, self.validation, layout, self.budget())

    def need_beside(self, known: "Case", need: MemoryNeed) -> MemoryNeed:
        """Memory by shapes, from that of a case with the same model where there is no more to it."""
        mine, theirs = self.recipe, known.recipe
        if any(
            getattr(mine, part) != getattr(theirs, part)
            for part in ("base", "lora", "quantization", "engine")
        ):
            return self.need()
        return replace(need, activations=int(need.activations * self.budget() / known.budget()))

    def other(self, recipe: Recipe, **rows: Sequence[Example]) -> "Case":
        """Return the case of another recipe, maybe with other rows."""
        return replace(self, recipe=recipe, **rows)  # type: ignore[arg-type]


def filled(case: Case, counted: Counted) -> float:
    """Return how full the heaviest micro-batch is; a row that is longer than the budget stands alone."""
    longest = max(int(lengths_of(rows).max()) for rows in (case.train, case.validation) if len(rows))
    return max(counted.heaviest.tokens, longest) / case.budget()


def shape_memory(need: MemoryNeed, full: float) -> float:
    """Return the peak by shapes alone, the heaviest micro-batch being so full."""
    return need.total + (full - 1) * need.activations


def scaled_memory(known: tuple[MemoryNeed, float], other: tuple[MemoryNeed, float], peak: float) -> float:
    """Predict another recipe's peak from a measured one: the difference of the shapes, activations scaled.

    Args:
        known: Shapes of the recipe that was measured, and how full its heaviest micro-batch is.
        other: The same of the other one.
        peak: That was measured.
    """
    need, full = known
    rest = PROGRAM + need.base + need.adapter + need.work
    scale = min(max((peak - rest) / max(full * need.activations, 1), EMPTIER), FULLER)
    fixed = [one.base + one.adapter + one.work for one in (need, other[0])]
    return peak + fixed[1] - fixed[0] + scale * (other[1] * other[0].activations - full * need.activations)
