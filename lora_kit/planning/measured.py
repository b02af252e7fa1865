"""A plan of a base that is here: its job is built as training builds it, and computes some steps."""

import tempfile
import time
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any

from lora_kit.artifacts.disk import disk_errors
from lora_kit.artifacts.run_dir import open_run
from lora_kit.audit.duration import reading_seconds
from lora_kit.audit.start import audit_start
from lora_kit.errors import MachineError
from lora_kit.harness.suite_texts import suite_texts
from lora_kit.inputs import Inputs, open_inputs
from lora_kit.model.base import find_base
from lora_kit.model.predict_memory import MemoryNeed
from lora_kit.planning.case import Case, filled, scaled_memory
from lora_kit.planning.cost import CostModel, Timed, fit
from lora_kit.planning.estimate import MEMORY_ERROR, Estimate, both_ways, kind_of, rows_of
from lora_kit.planning.ledger import Amounts, Correction, correction
from lora_kit.planning.measure import ENOUGH_SECONDS, HEAVIEST, MEDIAN, Measured, Measurement
from lora_kit.planning.other_time import Pace, last_audit, other_parts
from lora_kit.planning.work import Counted
from lora_kit.recipe.schema import Recipe
from lora_kit.recipe.sizes import parse_size
from lora_kit.train.clock import LONGEST_START
from lora_kit.train.job import TrainJob
from lora_kit.train.observe import Observer
from lora_kit.train.rehearse import settle_budget
from lora_kit.train.runtime import forget_peak, free_memory, memory_in_use
from lora_kit.train_run import build_job, model_beside

USUAL_ERROR = 0.12  # of the time, without runs that say more: a machine's speed drifts
SETTLED_SECONDS = 12.0  # of timing, where finding the token budget has taken its part
# With glibc's blocks of changing sizes, a peak grows by this share of the activations with each e-fold of
# micro-batches, and hardly after so many (quickstart's logs: 1.7 GB at the third step, 2.0 at the 36th).
GROWTH, GROWN = 0.12, 40
RISES = 0.02
FOUR_BIT_TIME = 1.04  # of a step with nf4 weights on a CPU, against float32 (LOG.md, 2026-11-23)


@dataclass(slots=True)
class Ready:
    """A job and what getting there took.

    Args:
        job: Ready to train.
        inputs: Its rows and base.
        starting: Seconds from the command to the first step, everything being in the cache.
        room: Bytes of memory that the run may take.
        in_use: Bytes of memory with the job built.
    """

    job: TrainJob
    inputs: Inputs
    starting: float
    room: int
    in_use: int


def measured_estimate(recipe: Recipe, place: Path, observer: Observer, *, begun: float | None) -> Estimate:
    """Measure on this machine.

    Args:
        recipe: The recipe.
        place: Where the run would be; something is written beside it, and deleted.
        observer: Whom to tell.
        begun: When the command began, as ``time.time`` counts; None to leave its start out.

    Raises:
        LoraKitError: What training itself would raise before its first step.
    """
    parent = next(folder for folder in place.absolute().parents if folder.is_dir())
    with disk_errors(parent), tempfile.TemporaryDirectory(prefix=".lora-kit-plan-", dir=parent) as folder:
        ready = _ready(recipe, Path(folder) / "run", observer, begun)
        return _estimate(recipe, ready, observer)


def _ready(recipe: Recipe, path: Path, observer: Observer, begun: float | None) -> Ready:
    """Do what training does before its first step; rows and base are opened twice, the second time timed."""
    # Of the imports the processor's time: files that are read for the first time are not, next time.
    starting = min(time.time() - begun, time.process_time()) if begun is not None else 0.0
    room = memory_in_use() + free_memory()
    suites = suite_texts(recipe.evaluate.suites)
    observer.phase(f"finding the base {recipe.base.model}")
    files = find_base(recipe.base)
    observer.phase(f"reading {recipe.data.train}")
    open_inputs(recipe, files, suites=suites, on_progress=observer.progress)
    observer.phase("loading the model")
    forget_peak()
    again = time.perf_counter()
    with model_beside(recipe, find_base(recipe.base)) as model:  # as training does
        inputs = open_inputs(recipe, files, suites=suites)
        job = build_job(recipe, open_run(path), inputs, observer, model.result())
    starting = (starting if starting < LONGEST_START else 0.0) + time.perf_counter() - again
    limit = recipe.engine.memory_limit
    return Ready(job, inputs, starting, min(room, parse_size(limit)) if limit else room, memory_in_use())


def _estimate(recipe: Recipe, ready: Ready, observer: Observer) -> Estimate:
    data, files = ready.inputs.data, ready.inputs.files
    case = Case(recipe, files.config, files.family, data.train, data.validation)
    need = case.need()
    case, pace, found = _timings(case, need, ready, observer)
    if not found.timed:
        raise MachineError(
            f"not even the shortest row fits: {found.no_room} tokens, beside the model",
            where="memory",
            cure="free memory, set quantization.method to nf4, or choose a smaller base",
        )
    return _Measured(case, need, ready, pace, found).estimate()


def _timings(case: Case, need: MemoryNeed, ready: Ready, observer: Observer) -> tuple[Case, Pace, Measured]:
    """Time all that is asked of the job: audit, token budget, steps."""
    job, recipe, flops = ready.job, case.recipe, case.flops(need)
    reading = reading_seconds(need.base, job.accelerator.device.type)
    pace = Pace(ready.starting, 0.0, flops.forward, reading=reading)
    if recipe.engine.audit == "on":
        began = time.perf_counter()
        audit_start(job, ready.inputs.encoder, need, observer)
        pace = replace(pace, first_audit=time.perf_counter() - began)
    enough = ENOUGH_SECONDS
    if recipe.train.micro_batch_tokens == "auto" or job.memory_limit is not None:
        began = time.perf_counter()
        measurement = Measurement(job, flops, case.budget())
        case = replace(
            case, tokens=settle_budget(job, measurement.layout, measurement.stepper, observer).tokens
        )
        pace = replace(pace, settling=time.perf_counter() - began)
        enough = SETTLED_SECONDS
    observer.phase(f"timing steps, for about {enough:.0f} seconds")
    found = Measurement(job, flops, case.budget(), enough=enough).run()
    forward = flops.forward if found.forward_share is None else found.forward_share
    return case, replace(pace, saving=found.save_seconds, forward=forward), found


@dataclass(frozen=True, slots=True)
class _Measured:
    """Everything that was measured, and what follows from it."""

    case: Case
    need: MemoryNeed
    ready: Ready
    pace: Pace
    found: Measured

    def estimate(self) -> Estimate:
        cost, counted = self._cost(), self.case.count()
        parts = self._parts(self.case, self.need, counted)
        peak = self._peak(counted)
        raw = Amounts(parts["steps"], sum(parts.values()) - parts["steps"], peak)
        device = self.ready.job.accelerator.device.type
        kind = kind_of("measured", self.case, device)
        known = correction(kind)
        error = both_ways(cost.error, USUAL_ERROR if known.spread is None else known.spread)
        return Estimate(
            how="measured",
            where="this machine",
            kind=kind,
            case=self.case,
            need=self.need,
            rows=rows_of(self.ready.inputs.data, guessed=False),
            raw=raw,
            parts=parts,
            correction=known,
            error=error,
            memory_error=both_ways(MEMORY_ERROR),
            room=self.ready.room,
            room_of="GPU memory" if device == "cuda" else "memory",
            predict=lambda other: self._predicted(other, known, (peak, counted)),
            timed=[_as_json(one) for one in self.found.timed],
            notes=self._notes(),
        )

    def _cost(self) -> CostModel:
        return fit(self.found.timed, self.case.flops(self.need))

    def _parts(self, case: Case, need: MemoryNeed, counted: Counted) -> dict[str, float]:
        """Seconds by part, of this recipe or another one."""
        plan, speed = case.plan(), (self._cost(), case.flops(need))
        packed = case.recipe.quantization.method != self.case.recipe.quantization.method
        steps = speed[0].seconds(counted.training, speed[1]) * (FOUR_BIT_TIME if packed else 1.0)
        parts = {"steps": steps, **other_parts(case.recipe, plan, counted, self.pace, speed)}
        if case.recipe.engine.audit == "on":
            parts["last audit"] = last_audit(case.train, case.validation, self.pace, speed)
        return parts

    def _peak(self, counted: Counted) -> float:
        """Peak of the run: that of the timings, and what memory grows by while blocks come and go."""
        if self.found.no_room:
            longer = filled(self.case, counted) * self.case.budget() / self.found.timed[-1].work.tokens
            return self.ready.in_use + longer * (self.found.timed[-1].peak_bytes - self.ready.in_use)
        first, peak = self.found.timed[0].peak_bytes, max(one.peak_bytes for one in self.found.timed)
        rises = peak > (1 + RISES) * first  # else something before the steps took more than they do
        if self.ready.job.accelerator.device.type == "cuda" or not rises:
            return peak
        made = sum(one.work.batches for one in self.found.timed)
        more = min(counted.training.batches, GROWN) / made
        return peak + GROWTH * log(max(more, 1.0)) * max(peak - self.ready.in_use, 0)

    def _predicted(self, other: Case, known: Correction, now: tuple[float, Counted]) -> tuple[float, float]:
        """Likely seconds and bytes of another recipe, corrected as this one is."""
        peak, counted = now
        need, theirs = other.need_beside(self.case, self.need), other.count()
        parts = self._parts(other, need, theirs)
        memory = scaled_memory((self.need, filled(self.case, counted)), (need, filled(other, theirs)), peak)
        likely = known.applied(Amounts(parts["steps"], sum(parts.values()) - parts["steps"], memory))
        return (likely.step_seconds or 0) + (likely.other_seconds or 0), likely.memory_bytes or 0

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self.found.no_room:
            notes.append(f"{self.found.no_room} tokens at once did not fit in memory")
        if MEDIAN in self.found.untimed or HEAVIEST in self.found.untimed:
            notes.append("there was time for the shortest rows only: longer ones are predicted from them")
        if self.case.recipe.engine.trunk_cache == "on":
            notes.append("engine.trunk_cache makes later epochs quicker than is predicted here")
        return tuple(notes)


def _as_json(one: Timed) -> dict[str, Any]:
    tokens = round(one.work.tokens)
    return {"what": one.what, "tokens": tokens, "seconds": one.seconds, "peak_bytes": one.peak_bytes}
