"""A recipe to its plan: measured where the base's weights are here, else predicted from its config.

What was predicted for this machine is kept, for the run that may follow (``ledger.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_kit.artifacts.disk import free_bytes
from lora_kit.planning.changes import all_changes, best_change
from lora_kit.planning.devices import Device
from lora_kit.planning.energy import Tariff, energy_of
from lora_kit.planning.estimate import Estimate, span
from lora_kit.planning.known import gguf_refusal, know_base
from lora_kit.planning.ledger import keep_prediction
from lora_kit.planning.measured import measured_estimate
from lora_kit.planning.outlook import Disk, Memory, Outlook
from lora_kit.planning.predicted import predicted_estimate
from lora_kit.recipe.fingerprint import training_fingerprint
from lora_kit.recipe.schema import Recipe
from lora_kit.train.observe import Observer
from lora_kit.train.plan import CHECKPOINT_PARTS, checkpoints_at_once

FLOAT32 = 4  # bytes, of adapters and their moments
UNKEPT = "the cache can't be written: the run will not be compared with this plan"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a plan is asked for besides the recipe.

    Args:
        run: Where the run would be.
        device: Other hardware; None for this machine.
        tariff: What a kWh costs.
        watts: What the machine draws; None for the device's own, or not to count.
        begun: When the command began, as ``time.time`` counts.
    """

    run: Path
    device: Device | None = None
    tariff: Tariff | None = None
    watts: float | None = None
    begun: float | None = None


def plan_recipe(recipe: Recipe, asked: Asked, observer: Observer) -> Outlook:
    """Say what a run will take, before it is begun.

    Args:
        recipe: The recipe, its paths absolute.
        asked: What else.
        observer: Whom to tell.

    Raises:
        LoraKitError: What training would raise before its first step; or there is nothing to plan with.
    """
    watts = asked.watts if asked.watts is not None or asked.device is None else asked.device.watts
    energy_of(0.0, watts, asked.tariff)  # says at once that watts are missing
    base = know_base(recipe.base)
    if base.files is None or asked.device is not None:
        estimate = predicted_estimate(recipe, base, asked.device, observer)
    else:
        estimate = measured_estimate(recipe, asked.run, observer, begun=asked.begun)
    fingerprint = training_fingerprint(recipe)
    kept = asked.device is not None or keep_prediction(fingerprint, estimate.kind, estimate.raw)
    observer.phase("predicting what could be changed")
    memory = Memory(span(estimate.memory_bytes, estimate.memory_error), estimate.room, estimate.room_of)
    changes = all_changes(estimate.case, estimate.predict, estimate.seconds)
    notes = estimate.notes if kept else (*estimate.notes, UNKEPT)
    return Outlook(
        recipe=recipe.name,
        fingerprint=fingerprint,
        how=estimate.how,
        where=estimate.where,
        steps=estimate.case.plan().steps,
        rows=estimate.rows,
        seconds=span(estimate.seconds, estimate.error),
        parts=_corrected_parts(estimate),
        memory=memory,
        disk=_disk(estimate, asked.run),
        gguf=gguf_refusal(base),
        timed=estimate.timed,
        energy=energy_of(estimate.seconds, watts, asked.tariff),
        correction={"runs": estimate.correction.runs, **estimate.correction.factors},
        uncorrected={
            "seconds": sum(estimate.parts.values()),
            "memory_bytes": estimate.raw.memory_bytes or 0.0,
        },
        changes=tuple(changes),
        change=best_change(changes, estimate.seconds, memory),
        notes=notes,
        sources=estimate.sources,
    )


def _corrected_parts(estimate: Estimate) -> Mapping[str, float]:
    factors = estimate.correction.factors
    return {
        name: seconds * factors["step_seconds" if name == "steps" else "other_seconds"]
        for name, seconds in estimate.parts.items()
    }


def _disk(estimate: Estimate, place: Path) -> Disk:
    spec, need = estimate.case.recipe.train, estimate.need
    adapter = FLOAT32 * need.trained
    merged = need.parameters * {"float32": 4, "bfloat16": 2}[estimate.case.recipe.base.dtype]
    checkpoints = CHECKPOINT_PARTS * adapter * checkpoints_at_once(spec)
    return Disk(checkpoints, adapter, merged, free_bytes(place), str(place))
