"""What a run takes beside its steps: starting, audits, validation, checkpoints, saving."""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_kit.audit.duration import longest_answer, most_answering
from lora_kit.audit.held_out import sample
from lora_kit.audit.stopping import prompts_of
from lora_kit.data.types import Example
from lora_kit.planning.cost import CostModel
from lora_kit.planning.flops import Flops
from lora_kit.planning.work import Counted, Work
from lora_kit.recipe.schema import Recipe
from lora_kit.train.plan import TrainPlan


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured beside steps, or is assumed.

    Args:
        starting: Seconds from the command to the first step, rows and base being in the cache.
        saving: Seconds of a checkpoint.
        forward: Share of a micro-batch's time that its forward pass takes.
        first_audit: Seconds of the audit before the first step.
        settling: Seconds of finding the token budget.
        reading: Seconds of reading all weights once, as each token of an answer does.
    """

    starting: float
    saving: float
    forward: float
    first_audit: float = 0.0
    settling: float = 0.0
    reading: float = 0.0


def other_parts(
    recipe: Recipe, plan: TrainPlan, counted: Counted, pace: Pace, speed: tuple[CostModel, Flops]
) -> dict[str, float]:
    """Return seconds by part; the audit of the adapter is not among them."""
    steps = range(1, plan.steps + 1)
    checks = sum(map(plan.validates, steps))
    validation = pace.forward * speed[0].seconds(counted.validation, speed[1])
    parts = {
        "starting": pace.starting,
        "settling": pace.settling,
        "validation": checks * validation,
        "checkpoints": sum(map(plan.saves, steps)) * pace.saving,
        "saving": pace.saving,
        "first audit": pace.first_audit if recipe.engine.audit == "on" else 0.0,
    }
    return {name: seconds for name, seconds in parts.items() if seconds}


def last_audit(
    train: Sequence[Example], validation: Sequence[Example], pace: Pace, speed: tuple[CostModel, Flops]
) -> float:
    """Return the seconds of the audit of the adapter, if no answer of its prompts ends early.

    A process starts, loads the adapter, computes the loss of some rows, as this one did, and answers.
    """
    cost, flops = speed
    rows = sample(train, validation)
    tokens = sum(len(row.input_ids) for row in rows)
    trained = sum(row.trained_tokens for row in rows)
    losses = 2 * cost.seconds(Work(0, len(rows) / 4, tokens, trained, tokens * tokens / len(rows)), flops)
    prompts = prompts_of(rows)
    read = 2 * cost.seconds(Work(0, 1, sum(len(prompt.ids) for prompt in prompts), len(prompts)), flops)
    token = flops.forward * cost.flop * flops.of(Work(0, 1, len(prompts), len(prompts))) + pace.reading
    answers = min(longest_answer(prompts) * token, most_answering())
    return pace.starting + pace.forward * (losses + read) + answers
