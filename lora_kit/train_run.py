"""Recipe -> data -> training -> adapter: the first half of the pipeline, which ends in ``RUN/adapter``."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from lora_kit.artifacts.checkpoint import saved_steps
from lora_kit.artifacts.commit import write_file, write_json
from lora_kit.artifacts.disk import require_free
from lora_kit.artifacts.manifest import read_object
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.audit.duration import audit_seconds
from lora_kit.audit.held_out import measured_sample
from lora_kit.audit.start import audit_start
from lora_kit.data.sources import refuse_changed
from lora_kit.errors import RecipeError
from lora_kit.harness.suite_texts import suite_texts
from lora_kit.inputs import Inputs, open_inputs, run_base
from lora_kit.model.adapter_inject import add_adapter
from lora_kit.model.base import BaseFiles
from lora_kit.model.context import check_longest
from lora_kit.model.engine import choose_number_type, offload_activations
from lora_kit.model.load import check_vocabulary, load_model
from lora_kit.model.memory import keep_freed_memory, recompute_layers
from lora_kit.model.predict_memory import predict_memory
from lora_kit.model.token_rows import token_ids
from lora_kit.model.unmap import own_weights
from lora_kit.recipe.fingerprint import training_fingerprint
from lora_kit.recipe.load import dump_recipe, load_resolved, portable
from lora_kit.recipe.schema import Recipe
from lora_kit.recipe.sizes import parse_size
from lora_kit.saving import save_last_good, save_result
from lora_kit.train.clock import Session, now
from lora_kit.train.deadline_record import close_deadline
from lora_kit.train.frozen_trunk import use_trunk_cache
from lora_kit.train.job import Foretold, TrainJob, deadline_of
from lora_kit.train.loop import train
from lora_kit.train.observe import Observer
from lora_kit.train.plan import CHECKPOINT_PARTS, checkpoints_at_once, plan_training
from lora_kit.train.runtime import build_accelerator, runtime_identity
from lora_kit.train.trackers import require_trackers, tracked


def train_recipe(
    recipe: Recipe,
    run_path: Path,
    observer: Observer,
    *,
    allow_inexact: bool = False,
    session: Session | None = None,
    afterwards: Foretold | None = None,
) -> dict[str, Any]:
    """Train, or go on with a run that was cut, or say that it is finished.

    Args:
        recipe: The recipe.
        run_path: Its run directory.
        observer: Whom to tell.
        allow_inexact: Go on with other versions, threads or hardware.
        session: Where a deadline's time comes from; None if it begins to count now.
        afterwards: Foretells the seconds of what comes after training and the adapter's audit.

    Returns:
        The run's state as written to run.json.

    Raises:
        LoraKitError: Any of its kinds; what was committed before stays.
    """
    run, session = open_run(run_path), session or Session(now())
    with run.lock():
        state = run.read_state()
        _same_recipe(run, recipe)
        require_trackers(recipe.engine.trackers)
        if state.get("status") == "finished":
            return state
        started = state.get("started") or datetime.now(UTC).isoformat(timespec="seconds")
        run.update_state(status="running", name=recipe.name, started=started)
        write_file(run.recipe, dump_recipe(recipe).encode())
        observer.phase(f"finding the base {recipe.base.model}")
        files = run_base(recipe, run)
        run.update_state(base_revision=files.revision)
        with model_beside(recipe, files) as model:
            inputs = _prepare(recipe, run, files, observer)
            observer.phase("loading the model")
            job = build_job(recipe, run, inputs, observer, model.result())
        later = [audit_seconds(job)] if recipe.engine.audit == "on" else []
        later += [afterwards] if afterwards else []
        deadline = deadline_of(recipe.train, session, lambda known: sum(one(known) for one in later))
        job = replace(job, deadline=deadline)
        session.starting = session.clock() - session.began
        if recipe.engine.audit == "on" and not saved_steps(run):
            audit_start(job, inputs.encoder, predict_memory(recipe, inputs.files.config), observer)
        with tracked(
            observer,
            recipe.engine.trackers,
            project=recipe.name,
            folder=run.path / "trackers",
            settings=portable(recipe),
        ) as watched:
            result = train(
                job,
                watched,
                allow_inexact=allow_inexact,
                on_failed=lambda error: save_last_good(recipe, inputs, job, error),
            )
        observer.phase("saving the adapter")
        sample = measured_sample(job, result.tensors) if recipe.engine.audit == "on" else None
        save_result(recipe, inputs, job, result, run.adapter, sample)
        run.update_state(
            status="finished",
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            steps=result.steps,
            kept_step=result.step,
            validation_loss=result.validation_loss,
            inexact=list(result.inexact),
        )
        close_deadline(run, session)
        return run.read_state()


def _same_recipe(run: RunDir, recipe: Recipe) -> None:
    """A run directory belongs to one recipe for good (its evaluate section may change)."""
    if not run.recipe.is_file():
        return
    before = load_resolved(run.recipe)
    if training_fingerprint(before) != training_fingerprint(recipe):
        raise RecipeError(
            "the run directory belongs to another recipe",
            where=str(run.path),
            cure="use another --run-dir, or go on with it: lora-kit train " + str(run.path),
        )


def open_model(recipe: Recipe, files: BaseFiles) -> PreTrainedModel:
    """Load a recipe's base, on its device and in its number type."""
    return load_model(
        files, dtype=recipe.base.dtype, quantization=recipe.quantization, device=recipe.train.device
    )


@contextmanager
def model_beside(recipe: Recipe, files: BaseFiles) -> Iterator[Future[PreTrainedModel]]:
    """Load a recipe's base while the block runs: encoding waits for disk and tokenizer, loading for disk."""
    with ThreadPoolExecutor(1) as beside:
        yield beside.submit(open_model, recipe, files)


def _prepare(recipe: Recipe, run: RunDir, files: BaseFiles, observer: Observer) -> Inputs:
    """Prepare the rows, which have to be those that the run began with."""
    observer.phase(f"reading {recipe.data.train}")
    suites = suite_texts(recipe.evaluate.suites)
    inputs = open_inputs(recipe, files, suites=suites, on_progress=observer.progress)
    report = inputs.data.report.to_json()
    refuse_changed(read_object(run.data_report) if run.data_report.is_file() else {}, report)
    write_json(run.data_report, report)
    return inputs


def build_job(
    recipe: Recipe, run: RunDir, inputs: Inputs, observer: Observer, model: PreTrainedModel
) -> TrainJob:
    """Put the adapter on a model that is loaded, and plan its training."""
    family = inputs.files.family
    vocabulary = inputs.encoder.tokenizer.hf.get_vocab()
    check_vocabulary(inputs.files, vocabulary)
    check_longest(model.config, int((inputs.data.train + inputs.data.validation).lengths.max(initial=0)))
    tokens = token_ids(recipe.lora.train_tokens, vocabulary)
    adapted = add_adapter(
        model, recipe.lora, family, seed=recipe.train.seed, files=inputs.files, tokens=tokens
    )
    own_weights(adapted)
    keep_freed_memory()
    _apply_engine(recipe, inputs, adapted, observer)
    plan = plan_training(
        recipe.train, rows=len(inputs.data.train), has_validation=bool(inputs.data.validation)
    )
    run.update_state(steps=plan.steps)
    trainable = sum(p.numel() * p.element_size() for p in adapted.parameters() if p.requires_grad)
    require_free(run.path, CHECKPOINT_PARTS * trainable * checkpoints_at_once(recipe.train))
    identity = {
        "training_fingerprint": training_fingerprint(recipe),
        "base_fingerprint": inputs.files.fingerprint,
        "encoder_fingerprint": inputs.encoder.fingerprint,
        "data_fingerprint": inputs.data.fingerprint,
        **runtime_identity(),
    }
    return TrainJob(
        model=adapted,
        flattened=family.flattened,
        train=inputs.data.train,
        validation=inputs.data.validation,
        plan=plan,
        run=run,
        identity=identity,
        accelerator=build_accelerator(recipe.train.device),
        share_prefixes=not recipe.lora.dropout and recipe.engine.share_prefixes == "auto",
        optimizer=recipe.engine.optimizer,
        memory_limit=parse_size(recipe.engine.memory_limit) if recipe.engine.memory_limit else None,
    )


def _apply_engine(recipe: Recipe, inputs: Inputs, model: PeftModel, observer: Observer) -> None:
    """Do what the recipe's engine section says about the forward pass."""
    choose_number_type(model)
    if recipe.engine.memory == "low":
        recompute_layers(model)
    if recipe.engine.memory == "offload":
        offload_activations(model)
        if model.device.type == "cpu":
            observer.phase("engine.memory: offload saves nothing on a CPU, whose memory is the host's")
    if recipe.engine.trunk_cache == "on":
        use_trunk_cache(
            model,
            (inputs.data.train + inputs.data.validation).lengths.tolist(),
            observer,
            flattened=inputs.files.family.flattened,
            identity={
                "base": inputs.files.fingerprint,
                "dtype": recipe.base.dtype,
                "quantization": recipe.quantization.model_dump(),
                **runtime_identity(),
            },
        )
