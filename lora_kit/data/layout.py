"""How rows become micro-batches: which are computed together, and how they lie in the tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lora_kit.data.collate import MicroBatch, flatten, pad, share
from lora_kit.data.plan_batches import plan_micro_batches, plan_shared_micro_batches
from lora_kit.data.types import Example

Plan = list[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Layout:
    """One way.

    Args:
        plan: Examples and most tokens of a micro-batch -> indices of what is computed together, each once.
        collate: Examples of one micro-batch -> tensors.
    """

    plan: Callable[[Sequence[Example], int], Plan]
    collate: Callable[[Sequence[Example]], MicroBatch]

    def micro_batches(self, examples: Sequence[Example], plan: Plan) -> list[MicroBatch]:
        """Collate every micro-batch of a plan."""
        return [self.collate([examples[index] for index in part]) for part in plan]


def layout_of(*, flattened: bool, share_prefixes: bool = False) -> Layout:
    """Choose the layout for a model.

    Args:
        flattened: Whether rows may lie end to end; else they are padded.
        share_prefixes: Whether common beginnings are computed once, where rows lie end to end.
    """
    if not flattened:
        return PADDED
    return SHARED if share_prefixes else FLAT


def _lengths(examples: Sequence[Example]) -> list[int]:
    return [len(example.input_ids) for example in examples]


PADDED = Layout(lambda rows, budget: plan_micro_batches(_lengths(rows), budget, padded=True), pad)
FLAT = Layout(lambda rows, budget: plan_micro_batches(_lengths(rows), budget, padded=False), flatten)
SHARED = Layout(
    lambda rows, budget: plan_shared_micro_batches([row.input_ids for row in rows], budget), share
)
