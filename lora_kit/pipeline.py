"""The whole tool in one page: recipe -> data -> training -> adapter -> merge -> evaluation -> report.

Each stage reads from disk and ends on disk, so that any of them can be run, tested
or repeated alone. Only this module ever holds a whole recipe; all others get the
part of it that they need.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lora_kit.artifacts.adapter import save_adapter
from lora_kit.artifacts.commit import write_file, write_json
from lora_kit.artifacts.disk import require_free
from lora_kit.artifacts.folder_lock import folder_lock
from lora_kit.artifacts.model_card import model_card
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.assemble import Opened, open_adapter, open_target, tokenizer_files
from lora_kit.data.encode import Encoder
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.prepare import PreparedData, prepare_data
from lora_kit.data.sources import refuse_changed
from lora_kit.errors import ModelError, RecipeError
from lora_kit.export.merge import MergeReport, merge_adapter
from lora_kit.harness import results_file
from lora_kit.harness.engines.transformers_engine import TransformersEngine
from lora_kit.harness.results import Results
from lora_kit.harness.run import evaluate
from lora_kit.harness.suite import Suite, load_suite
from lora_kit.harness.suite_texts import suite_texts
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter
from lora_kit.model.base import BaseFiles, find_base
from lora_kit.model.load import check_vocabulary, load_model
from lora_kit.recipe.fingerprint import recipe_fingerprint, training_fingerprint
from lora_kit.recipe.load import dump_recipe, load_resolved
from lora_kit.recipe.schema import EvaluateSpec, Recipe
from lora_kit.report.write import write_report
from lora_kit.train.loop import TrainJob, TrainResult, train
from lora_kit.train.observe import Observer
from lora_kit.train.plan import plan_training
from lora_kit.train.runtime import build_accelerator, runtime_identity

Progress = Callable[[int, int], None]


def run_recipe(
    recipe: Recipe, run_path: Path, observer: Observer, *, allow_inexact: bool = False
) -> dict[str, Any]:
    """Train, evaluate on the recipe's suites, merge, report; what is finished is not done again."""
    run = RunDir(run_path.absolute())
    state = train_recipe(recipe, run_path, observer, allow_inexact=allow_inexact)
    nothing_to_do = True
    for name in recipe.evaluate.suites:
        if not _is_current(run, load_suite(name), recipe.evaluate):
            evaluate_target(str(run_path), name, recipe.evaluate, observer)
            nothing_to_do = False
    if not run.merged.is_dir():
        merge_run(run_path, observer)
        nothing_to_do = False
    write_report(run)
    return {
        "run": str(run_path),
        "state": state,
        "report": str(run.report_html),
        "nothing_to_do": nothing_to_do,
    }


def _is_current(run: RunDir, suite: Suite, spec: EvaluateSpec) -> bool:
    """Whether results of this very suite, with these settings, are there already."""
    results = read_results(run.path).get(suite.name)
    if results is None or results["suite"]["fingerprint"] != suite.fingerprint:
        return False
    wanted = spec.model_dump(exclude={"suites"})
    return {name: results["settings"].get(name) for name in wanted} == wanted


# --- training -----------------------------------------------------------------------------------------------


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
    adapted = add_adapter(model, recipe.lora, family, seed=recipe.train.seed)
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


# --- evaluation, merge, report ------------------------------------------------------------------------------


def evaluate_target(
    target: str,
    suite_name: str,
    spec: EvaluateSpec,
    observer: Observer,
    *,
    out: Path | None = None,
    base: str | None = None,
) -> tuple[Path, Results]:
    """Score a run's adapter against its base, or a model alone, on a suite.

    Returns:
        The folder with results.json, and the results.
    """
    suite = load_suite(suite_name)
    observer.phase(f"loading {target}")
    opened = open_target(target, base=base)
    folder = out or _evaluation_folder(target, opened, suite.name)
    fingerprint = opened.files.fingerprint
    engines = [
        TransformersEngine("base", opened.model, opened.encoder, adapter=False, base_fingerprint=fingerprint)
    ]
    if opened.adapter is not None:
        engines.append(
            TransformersEngine(
                "tuned", opened.model, opened.encoder, adapter=True, base_fingerprint=fingerprint
            )
        )
    observer.phase(f"evaluating on suite {suite.name} ({len(suite.items)} prompts)")
    with folder_lock(folder):
        before = results_file.read_results(folder / results_file.RESULTS, suite.name)
        results = evaluate(engines, suite, spec, folder=folder, on_progress=observer.progress)
        write_json(folder / results_file.RESULTS, results_file.carried_over(before, results.to_json()))
    return folder, results


def _evaluation_folder(target: str, opened: Opened, suite: str) -> Path:
    if (Path(target) / "run.json").is_file():
        return RunDir(Path(target)).evaluations / suite
    return Path("evaluations") / opened.name / suite


def merge_run(
    target: Path,
    observer: Observer,
    *,
    out: Path | None = None,
    force: bool = False,
    dtype: str | None = None,
    base: str | None = None,
) -> MergeReport:
    """Merge a run's adapter into its base, and check the result on real rows."""
    run = RunDir(target)
    is_run = (target / "run.json").is_file()
    folder = out or (run.merged if is_run else target.with_name(target.name + "-merged"))
    if folder.exists() and not force:
        raise ModelError(
            "there is a merged model already",
            where=str(folder),
            cure="pass --out DIR, or --force to replace it",
        )
    adapter = run.adapter if is_run else target
    observer.phase(f"loading base and adapter {adapter}")
    opened = open_adapter(adapter, name=target.name, base=base)
    rows = _check_rows(opened)
    observer.phase(f"merging into {folder}, then comparing logits on {len(rows)} rows")
    return merge_adapter(opened, rows, folder, dtype=dtype)


def _check_rows(opened: Opened, count: int = 4, longest: int = 256) -> list[tuple[int, ...]]:
    """Rows to compare logits on: some of the training data if it is still there, else a suite's prompts."""
    assert opened.adapter is not None
    recipe = (
        load_resolved(opened.adapter.folder / "recipe.yaml")
        if (opened.adapter.folder / "recipe.yaml").is_file()
        else None
    )
    if recipe is not None and (recipe.data.train.startswith("sample:") or Path(recipe.data.train).is_file()):
        few = recipe.data.model_copy(
            update={"limit": 4 * count, "validation": None, "validation_fraction": 0.0}
        )
        examples = prepare_data(few, opened.encoder).train
        return [example.input_ids[:longest] for example in examples[:count]]
    items = load_suite("quickstart").items[:count]
    return [tuple(opened.encoder.encode_prompt(item.messages)) for item in items]


def report_run(run_path: Path) -> list[Path]:
    """Write report.html and report.md from what the run left on disk."""
    return write_report(open_run(run_path, create=False))


def read_results(run_path: Path) -> dict[str, dict[str, Any]]:
    """Suite name to the content of its results.json."""
    files: Sequence[Path] = sorted(RunDir(run_path).evaluations.glob("*/results.json"))
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
