"""A plan without the base's weights, or of hardware that is not here: from config.json and data sheets."""

from dataclasses import dataclass

from lora_kit.artifacts.disk import readable_bytes
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.prepare import PreparedData, prepare_data
from lora_kit.harness.suite_texts import suite_texts
from lora_kit.model.load import pick_device
from lora_kit.model.predict_memory import PROGRAM, MemoryNeed
from lora_kit.planning.case import Case, filled, shape_memory
from lora_kit.planning.cost import of_rate
from lora_kit.planning.devices import CONTEXT_BYTES, Device
from lora_kit.planning.estimate import Estimate, kind_of, rows_of
from lora_kit.planning.guess import Guess
from lora_kit.planning.known import KnownBase
from lora_kit.planning.ledger import NOTHING_KNOWN, Amounts, correction
from lora_kit.planning.other_time import Pace, last_audit, other_parts
from lora_kit.planning.speed import Speed, data_sheet, here
from lora_kit.planning.work import Work
from lora_kit.recipe.schema import Recipe
from lora_kit.train.observe import Observer
from lora_kit.train.plan import CHECKPOINT_PARTS
from lora_kit.train.runtime import free_memory, memory_in_use

ERROR = (0.4, 1.0)  # of a time from rates: between 0.6 and 2 times
RUNS_ERROR = (0.2, 0.25)  # if runs of this machine corrected it
MEMORY_ERROR = (0.25, 0.15)
STARTING, LOADING = 12.0, 0.3e9  # seconds for imports and rows; bytes a second of weights; assumed
WRITING = 0.1e9  # bytes a second of a checkpoint, written, forced to the disk and read back; assumed
FIRST_AUDIT = 12 * 60  # tokens that the audit before the first step computes, forward and backward, about


def predicted_estimate(
    recipe: Recipe, base: KnownBase, device: Device | None, observer: Observer
) -> Estimate:
    """Predict from what is known.

    Args:
        recipe: The recipe.
        base: Its base, as far as it is here.
        device: Where; None for this machine.
        observer: Whom to tell.

    Raises:
        LoraKitError: Rows, tokenizer or config are wrong.
    """
    observer.phase(f"reading {recipe.data.train}")
    data = _rows(recipe, base, observer)
    guessed = not base.has_tokenizer
    case = Case(recipe, base.config, base.family, data.train, data.validation, share=not guessed)
    observer.phase("predicting from config.json")
    return _Predicted(case, data, device, guessed=guessed, weights=base.files is not None).estimate()


def _rows(recipe: Recipe, base: KnownBase, observer: Observer) -> PreparedData:
    suites = suite_texts(recipe.evaluate.suites)
    if base.has_tokenizer:
        encoder = open_encoder(base.folder, recipe.data.template, recipe.data.system)
        return prepare_data(recipe.data, encoder, on_progress=observer.progress, suites=suites)
    # A guess must not refuse a row for its length.
    spec = recipe.data.model_copy(update={"overlong": "drop"})
    return prepare_data(spec, Guess(recipe.data.system), on_progress=observer.progress, suites=suites)


@dataclass(frozen=True, slots=True)
class _Predicted:
    """A case and where it would run."""

    case: Case
    data: PreparedData
    device: Device | None
    guessed: bool
    weights: bool

    @property
    def kind(self) -> str:
        """Device type, as torch names it."""
        return self.device.kind if self.device else pick_device(self.case.recipe.train.device)

    def estimate(self) -> Estimate:
        speed = here(self.case.recipe.train.device) if self.device is None else data_sheet(self.device)
        need = self.case.need()
        parts, memory = self._amounts(self.case, need, speed)
        raw = Amounts(parts["steps"], sum(parts.values()) - parts["steps"], memory)
        kind = kind_of("predicted", self.case, self.kind)
        known = correction(kind) if self.device is None else NOTHING_KNOWN

        def predict(other: Case) -> tuple[float, float]:
            theirs, peak = self._amounts(other, other.need_beside(self.case, need), speed)
            likely = known.applied(Amounts(theirs["steps"], sum(theirs.values()) - theirs["steps"], peak))
            return (likely.step_seconds or 0) + (likely.other_seconds or 0), likely.memory_bytes or 0

        return Estimate(
            how="predicted",
            where=self.device.label if self.device else "this machine",
            kind=kind,
            case=self.case,
            need=need,
            rows=rows_of(self.data, guessed=self.guessed),
            raw=raw,
            parts=parts,
            correction=known,
            error=RUNS_ERROR if known.runs else ERROR,
            memory_error=MEMORY_ERROR,
            room=self.device.memory_bytes if self.device else memory_in_use() + free_memory(),
            room_of="GPU memory" if self.kind == "cuda" else "memory",
            predict=predict,
            notes=self._notes(need),
            sources=self.device.sources if self.device else {},
            watts=self.device.watts if self.device else None,
        )

    def _amounts(self, case: Case, need: MemoryNeed, speed: Speed) -> tuple[dict[str, float], float]:
        """Seconds by part, and the peak, of this recipe or another one."""
        plan, counted, flops = case.plan(), case.count(), case.flops(need)
        again = 3 if case.recipe.engine.memory == "low" else 2
        batch = speed.batch + again * need.base / speed.bandwidth
        cost = of_rate(speed.rate(case.recipe), batch=batch)
        saving = 0.5 + CHECKPOINT_PARTS * 4 * need.trained / WRITING
        audit = cost.seconds(Work(0, 12, FIRST_AUDIT, FIRST_AUDIT / 2, 60 * FIRST_AUDIT), flops) + saving
        reading = need.base / speed.bandwidth
        pace = Pace(STARTING + need.base / LOADING, saving, flops.forward, audit, reading=reading)
        parts = {"steps": cost.seconds(counted.training, flops)}
        parts |= other_parts(case.recipe, plan, counted, pace, (cost, flops))
        if case.recipe.engine.audit == "on":
            parts["last audit"] = last_audit(case.train, case.validation, pace, (cost, flops))
        memory = shape_memory(need, filled(case, counted))
        return parts, memory if self.kind == "cpu" else memory - PROGRAM + CONTEXT_BYTES

    def _notes(self, need: MemoryNeed) -> tuple[str, ...]:
        notes = [
            "predicted from config.json" + (" and data sheets" if self.device else "") + ", not measured"
        ]
        if self.guessed:
            notes.append("lengths are guessed from bytes: the base's tokenizer is not here")
        if not self.weights:
            size = readable_bytes(need.parameters * 2)
            notes.append(f"without the download of the base, about {size} in 16 bits")
        return tuple(notes)
