"""The whole tool in one page: recipe -> data -> training -> adapter -> merge -> evaluation -> report.

Each stage reads from disk and ends on disk, so that any of them can be run, tested
or repeated alone. Only this module and ``train_run``, its first half, ever hold a whole
recipe; all others get the part of it that they need.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from lora_kit.artifacts.adapter import read_adapter
from lora_kit.artifacts.commit import write_json
from lora_kit.artifacts.folder_lock import folder_lock
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.assemble import AdapterParts, find_adapter, merged_provenance
from lora_kit.audit.duration import reading_seconds
from lora_kit.audit.fresh import audit_run
from lora_kit.data.prepare import prepare_data
from lora_kit.errors import ModelError, RecipeError
from lora_kit.export.exporter import ExportOptions, ExportRequest
from lora_kit.export.merge import MergeReport, Weights, merge_adapter
from lora_kit.export.run import export_adapter, export_model, refuse_early, source_of
from lora_kit.harness import results_file
from lora_kit.harness.leakage import adapter_overlap
from lora_kit.harness.lm_eval_run import run_lm_eval
from lora_kit.harness.open_engines import DEFAULTS, EvaluateOptions, OpenedEngines, open_engines
from lora_kit.harness.results import Results
from lora_kit.harness.run import evaluate
from lora_kit.harness.suite import Suite, load_suite
from lora_kit.model.base import GIVEN_NAME, find_base
from lora_kit.recipe.load import load_resolved
from lora_kit.recipe.schema import BaseSpec, EvaluateSpec, Recipe
from lora_kit.report.write import write_report
from lora_kit.train.clock import Session, now
from lora_kit.train.deadline_record import close_deadline
from lora_kit.train.job import Foretold, Known
from lora_kit.train.observe import Observer
from lora_kit.train_run import train_recipe

Progress = Callable[[int, int], None]
CHARACTERS_PER_TOKEN = 3  # at least, in prompts
MERGED_BYTES_PER_SECOND = 50e6  # of the base: read, added to, written, hashed, compared; assumed


def run_recipe(
    recipe: Recipe,
    run_path: Path,
    observer: Observer,
    *,
    allow_inexact: bool = False,
    session: Session | None = None,
) -> dict[str, Any]:
    """Train, evaluate on the recipe's suites, merge, report; what is finished is not done again."""
    run, session = RunDir(run_path.absolute()), session or Session(now())
    later = _later_seconds(recipe) if recipe.train.has_deadline else None
    state = train_recipe(
        recipe, run_path, observer, allow_inexact=allow_inexact, session=session, afterwards=later
    )
    if recipe.engine.audit == "on":
        _audit(run, observer)
    nothing_to_do = True
    for name in recipe.evaluate.suites:
        if not _is_current(run, load_suite(name), recipe.evaluate):
            evaluate_target(str(run_path), name, recipe.evaluate, observer)
            nothing_to_do = False
    if not run.merged.is_dir():
        merge_run(run_path, observer)
        nothing_to_do = False
    close_deadline(run, session)
    write_report(run)
    return {
        "run": str(run_path),
        "state": state,
        "report": str(run.report_html),
        "nothing_to_do": nothing_to_do,
    }


def _later_seconds(recipe: Recipe) -> Foretold:
    """Foretell evaluation, merge and report.

    As if every answer were as long as it may be, and each suite and the merge opened the model anew.
    """
    spec = recipe.evaluate
    suites = [load_suite(name) for name in spec.suites]
    weights = sum(file.stat().st_size for file in find_base(recipe.base).folder.glob("*.safetensors"))
    characters = sum(
        len(message.content) for suite in suites for item in suite.items for message in item.messages
    )
    batches = sum(-(-len(suite.items) // spec.batch_size) for suite in suites)
    answers = sum(len(suite.items) for suite in suites) * spec.max_new_tokens
    merge = weights / MERGED_BYTES_PER_SECOND

    def seconds(known: Known) -> float:
        reading = batches * spec.max_new_tokens * reading_seconds(weights, known.device)
        evaluation = 2 * (known.token_seconds * (characters / CHARACTERS_PER_TOKEN + answers) + reading)
        return evaluation + merge + (len(suites) + 1) * known.starting_seconds

    return seconds


def _audit(run: RunDir, observer: Observer) -> None:
    """Audit the adapter; one that fails is not worth judging or merging, but a report."""
    try:
        audit_run(run, observer)
    except ModelError:
        write_report(run)
        raise


def _is_current(run: RunDir, suite: Suite, spec: EvaluateSpec) -> bool:
    """Whether results of this very suite, with these settings, are there already."""
    path = run.evaluations / suite.name / results_file.RESULTS
    results = results_file.read_results(path, suite.name)
    settings = results.get("settings", {})
    wanted = spec.model_dump(exclude={"suites"})
    same = {name: settings.get(name) for name in wanted} == wanted
    return same and results["suite"].get("fingerprint") == suite.fingerprint


# --- evaluation, merge, report ------------------------------------------------------------------------------


def evaluate_target(
    target: str,
    suite_name: str,
    spec: EvaluateSpec,
    observer: Observer,
    *,
    out: Path | None = None,
    options: EvaluateOptions = DEFAULTS,
) -> tuple[Path, Results]:
    """Score a run's adapter against its base, or a model alone, on a suite, and on tasks of lm-eval if asked.

    Returns:
        The folder with results.json, and the results.
    """
    suite = load_suite(suite_name)
    observer.phase(f"loading {target}")
    opened = open_engines(target, options)
    folder = out or _evaluation_folder(target, opened.name, suite.name)
    observer.phase(f"looking for suite {suite.name} in the training rows")
    overlap = adapter_overlap(opened.adapter, suite) if opened.adapter is not None else None
    observer.phase(f"evaluating on suite {suite.name} ({len(suite.items)} prompts)")
    with folder_lock(folder):
        before = results_file.read_results(folder / results_file.RESULTS, suite.name)
        results = evaluate(
            opened.engines, suite, spec, folder=folder, on_progress=observer.progress, overlap=overlap
        )
        content = results_file.carried_over(before, results.to_json())
        write_json(folder / results_file.RESULTS, content)
        if options.lm_eval:
            content[results_file.LM_EVAL] = _lm_eval(opened, spec, observer, options)
            write_json(folder / results_file.RESULTS, content)
    return folder, results


def _lm_eval(
    opened: OpenedEngines, spec: EvaluateSpec, observer: Observer, options: EvaluateOptions
) -> dict[str, Any]:
    observer.phase(f"lm-eval: {', '.join(options.lm_eval)}")
    assert opened.opened is not None, "open_engines refuses lm-eval on other engines"
    return run_lm_eval(
        opened.opened,
        options.lm_eval,
        folder=options.lm_eval_tasks,
        batch_size=spec.batch_size,
        on_progress=observer.progress,
    )


def _evaluation_folder(target: str, name: str, suite: str) -> Path:
    if (Path(target) / "run.json").is_file():
        return RunDir(Path(target)).evaluations / suite
    return Path("evaluations") / name / suite


def merge_run(
    target: Path,
    observer: Observer,
    *,
    out: Path | None = None,
    force: bool = False,
    dtype: str | None = None,
    base: str | None = None,
) -> MergeReport:
    """Merge a run's adapter into its base, and check the result on real rows.

    Args:
        target: A run, or an adapter folder.
        observer: Whom to tell.
        out: Folder to write; the run's own, if None.
        force: Replace a merged model that is there.
        dtype: Number type of the merged weights; the one that was trained with, if None.
        base: ``dequantized`` or ``original``, of a base that was quantized in training; else where it is now.
    """
    into: Weights = "original" if base == "original" else "dequantized"
    moved = None if base in get_args(Weights) else base
    run = RunDir(target)
    is_run = (target / "run.json").is_file()
    folder = out or (run.merged if is_run else target.with_name(target.name + "-merged"))
    _refuse_existing(folder, "a merged model", force=force)
    adapter = run.adapter if is_run else target
    observer.phase(f"checking base and adapter {adapter}")
    parts = find_adapter(adapter, name=target.name, base=moved)
    rows = _check_rows(parts)
    observer.phase(f"merging into {folder}, then comparing logits on {len(rows)} rows")
    return merge_adapter(parts, rows, folder, dtype=dtype, into=into)


def _refuse_existing(folder: Path, what: str, *, force: bool) -> None:
    """Refuse to write where something is; a file is never replaced by a folder."""
    if folder.exists() and not folder.is_dir():
        raise ModelError("a file, not a folder", where=str(folder), key="--out", cure="name a folder")
    if folder.exists() and not force:
        cure = "pass --out DIR, or --force to replace it"
        raise ModelError(f"there is {what} already", where=str(folder), cure=cure)


def _check_rows(parts: AdapterParts, count: int = 4, longest: int = 256) -> list[tuple[int, ...]]:
    """Rows to compare logits on: some of the training data if it is still there, else a suite's prompts."""
    recipe = (
        load_resolved(parts.adapter.folder / "recipe.yaml")
        if (parts.adapter.folder / "recipe.yaml").is_file()
        else None
    )
    if recipe is not None and (recipe.data.train.startswith("sample:") or Path(recipe.data.train).is_file()):
        few = recipe.data.model_copy(
            update={"limit": 4 * count, "validation": None, "validation_fraction": 0.0}
        )
        examples = prepare_data(few, parts.encoder).train
        return [example.input_ids[:longest] for example in examples[:count]]
    items = load_suite("quickstart").items[:count]
    return [tuple(parts.encoder.encode_prompt(item.messages)) for item in items]


def export_target(target: str, request: ExportRequest, observer: Observer) -> dict[str, Any]:
    """Export a run, an adapter folder or a model; an adapter is merged first if it isn't yet.

    Returns:
        The certificate, and the folder that was written.
    """
    path = Path(target)
    is_run = (path / "run.json").is_file()
    is_adapter = is_run or (path / "adapter_config.json").is_file()
    stem = f"adapter-{request.kind}" if request.adapter_only else request.kind
    label = f"{stem}-{request.quant}" if request.quant else stem
    name = path.resolve().name if path.exists() else PurePosixPath(target).stem
    out = request.out or (path / "exports" if is_run else Path("exports") / name) / label
    _refuse_existing(out, "an export", force=request.force)
    if request.adapter_only:
        if not is_adapter or request.kind != "gguf":
            raise RecipeError("only for a run or an adapter, with --to gguf", key="--adapter-only")
        return export_adapter(RunDir(path).adapter if is_run else path, out, request)
    if is_adapter:
        refuse_early(RunDir(path).adapter if is_run else path, request)
    folder = _merged(path, is_run, request.base, observer) if is_adapter else target
    source = source_of(find_base(BaseSpec(model=str(folder)), key=GIVEN_NAME), name)
    observer.phase(f"exporting {name} to {request.kind}")
    return export_model(source, request.kind, out, ExportOptions(request.quant, observer.progress))


def _merged(path: Path, is_run: bool, base: str | None, observer: Observer) -> Path:  # noqa: FBT001
    """The merged model of an adapter: the one that is there if it is of this adapter, else a new one."""
    saved = read_adapter(RunDir(path).adapter if is_run else path)
    folder = RunDir(path).merged if is_run else path.with_name(path.name + "-merged")
    training = saved.provenance.get("training_fingerprint")
    if training is None or merged_provenance(folder).get("training_fingerprint") != training:
        merge_run(path, observer, force=is_run, base=base)
    return folder.resolve()


def read_results(run_path: Path) -> dict[str, dict[str, Any]]:
    """Suite name to the content of its results.json."""
    files: Sequence[Path] = sorted(RunDir(run_path).evaluations.glob("*/results.json"))
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
