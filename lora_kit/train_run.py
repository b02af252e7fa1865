"""Recipe -> data -> training -> adapter: the first half of the pipeline, which ends in ``RUN/adapter``."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lora_kit.artifacts.adapter import save_adapter
from lora_kit.artifacts.commit import write_file, write_json
from lora_kit.artifacts.disk import require_free
from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.artifacts.model_card import model_card
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.assemble import tokenizer_files
from lora_kit.data.encode import Encoder
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.prepare import PreparedData, prepare_data
from lora_kit.data.sources import refuse_changed
from lora_kit.errors import RecipeError
from lora_kit.harness.suite_texts import suite_texts
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter
from lora_kit.model.base import BaseFiles, find_base
from lora_kit.model.context import check_longest
from lora_kit.model.load import check_vocabulary, load_model
from lora_kit.model.memory import keep_freed_memory, recompute_layers
from lora_kit.recipe.fingerprint import recipe_fingerprint, training_fingerprint
from lora_kit.recipe.load import dump_recipe, load_resolved
from lora_kit.recipe.schema import Recipe
from lora_kit.train.loop import TrainJob, TrainResult, train
from lora_kit.train.observe import Observer
from lora_kit.train.plan import plan_training
from lora_kit.train.runtime import build_accelerator, runtime_identity


def train_recipe(
    recipe: Recipe, run_path: Path, observer: Observer, *, allow_inexact: bool = False
) -> dict[str, Any]:
    """Train, or go on with a run that was cut, or say that it is finished.

    Returns:
        The run's state as written to run.json.

    Raises:
        LoraKitError: Any of its kinds; what was committed before stays.
    """
    run = open_run(run_path)
    with run.lock():
        state = run.read_state()
        _same_recipe(run, recipe)
        if state.get("status") == "finished":
            return state
        started = state.get("started") or datetime.now(UTC).isoformat(timespec="seconds")
        run.update_state(status="running", name=recipe.name, started=started)
        write_file(run.recipe, dump_recipe(recipe).encode())
        bench = _prepare(recipe, run, observer)
        job = _build_job(recipe, run, bench, observer)
        result = train(
            job,
            observer,
            allow_inexact=allow_inexact,
            on_diverged=lambda: _save_last_good(recipe, bench, job),
        )
        observer.phase("saving the adapter")
        _save(recipe, bench, job, result, run.adapter)
        run.update_state(
            status="finished",
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            steps=result.steps,
            kept_step=result.step,
            validation_loss=result.validation_loss,
            inexact=list(result.inexact),
        )
        return run.read_state()


@dataclass(frozen=True, slots=True)
class _Bench:
    """What training works with, before a model is in memory."""

    files: BaseFiles
    encoder: Encoder
    data: PreparedData


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


def _prepare(recipe: Recipe, run: RunDir, observer: Observer) -> _Bench:
    observer.phase(f"finding the base {recipe.base.model}")
    pinned = run.read_state().get("base_revision") or recipe.base.revision  # a branch moves, a run does not
    files = find_base(recipe.base.model_copy(update={"revision": pinned}))
    run.update_state(base_revision=files.revision)
    observer.phase(f"reading {recipe.data.train}")
    encoder = open_encoder(files.folder, recipe.data.template, recipe.data.system)
    suites = suite_texts(recipe.evaluate.suites)
    data = prepare_data(recipe.data, encoder, suites=suites, on_progress=observer.progress)
    before = json.loads(run.data_report.read_text("utf-8")) if run.data_report.is_file() else {}
    refuse_changed(before, data.report.to_json())
    write_json(run.data_report, data.report.to_json())
    return _Bench(files, encoder, data)


def _build_job(recipe: Recipe, run: RunDir, bench: _Bench, observer: Observer) -> TrainJob:
    observer.phase("loading the model")
    family = bench.files.family
    model = load_model(
        bench.files, dtype=recipe.base.dtype, quantization=recipe.quantization, device=recipe.train.device
    )
    check_vocabulary(bench.files, bench.encoder.tokenizer.hf.get_vocab())
    check_longest(model.config, int((bench.data.train + bench.data.validation).lengths.max(initial=0)))
    adapted = add_adapter(model, recipe.lora, family, seed=recipe.train.seed)
    keep_freed_memory()
    if recipe.engine.memory == "low":
        recompute_layers(adapted)
    plan = plan_training(recipe.train, rows=len(bench.data.train), has_validation=bool(bench.data.validation))
    trainable = sum(p.numel() * p.element_size() for p in adapted.parameters() if p.requires_grad)
    require_free(run.path, 3 * trainable * (recipe.train.keep_checkpoints + 2))
    identity = {
        "training_fingerprint": training_fingerprint(recipe),
        "base_fingerprint": bench.files.fingerprint,
        "encoder_fingerprint": bench.encoder.fingerprint,
        "data_fingerprint": bench.data.fingerprint,
        **runtime_identity(),
    }
    return TrainJob(
        model=adapted,
        flattened=family.flattened,
        train=bench.data.train,
        validation=bench.data.validation,
        plan=plan,
        run=run,
        identity=identity,
        accelerator=build_accelerator(recipe.train.device),
        share_prefixes=family.flattened
        and not recipe.lora.dropout
        and recipe.engine.share_prefixes == "auto",
    )


def _save_last_good(recipe: Recipe, bench: _Bench, job: TrainJob) -> None:
    result = TrainResult(0, job.plan.steps, None, inexact=(), tensors=adapter_tensors(job.model))
    _save(recipe, bench, job, result, job.run.path / "last_good")


def _save(recipe: Recipe, bench: _Bench, job: TrainJob, result: TrainResult, folder: Path) -> None:
    """Write the adapter in PEFT's format, with all that is needed to use and to trust it."""
    files = tokenizer_files(bench.files.folder)
    own = recipe.data.template.endswith(".jinja")
    template = "model" if own else recipe.data.template  # the user's file travels as the model's own template
    provenance = {
        "base": {
            "source": recipe.base.model,
            "revision": bench.files.revision,
            "fingerprint": bench.files.fingerprint,
            "dtype": recipe.base.dtype,
        },
        "quantization": recipe.quantization.model_dump(),
        "template": {"name": template, "fingerprint": bench.encoder.template.fingerprint},
        "system": recipe.data.system,
        "tokenizer_fingerprint": bench.encoder.tokenizer.fingerprint,
        "encoder_fingerprint": bench.encoder.fingerprint,
        "recipe_fingerprint": recipe_fingerprint(recipe),
        "training_fingerprint": training_fingerprint(recipe),
        "data_fingerprint": bench.data.fingerprint,
        "step": result.step,
        "steps": result.steps,
        "validation_loss": result.validation_loss,
        "inexact": list(result.inexact),
        "metrics_digest": stable_digest(job.run.metrics),
        "runtime": runtime_identity(),
    }
    metrics: dict[str, float] = {"Steps": result.steps, "Kept step": result.step}
    if result.validation_loss is not None:
        metrics["Held-out loss (nats per token)"] = result.validation_loss
    save_adapter(
        folder,
        tensors=result.tensors,
        config=adapter_config(job.model, recipe.base.model),
        provenance=provenance,
        files={
            **files,
            **({"chat_template.jinja": Path(recipe.data.template)} if own else {}),
            "recipe.yaml": dump_recipe(recipe).encode(),
            "README.md": model_card(provenance, metrics).encode(),
        },
    )
