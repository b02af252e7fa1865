"""The audit of a finished adapter: does it differ from its base, load elsewhere as it was, and stop?

It reads the adapter from its folder, as anybody would; ``lora-kit train`` starts it in a process of its own,
so that nothing of the training is left that could hide what the folder lacks.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from lora_kit.artifacts.adapter import PROVENANCE, WEIGHTS, SavedAdapter
from lora_kit.artifacts.manifest import file_sha256
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.assemble import AdapterParts, find_adapter, finished_adapter, open_parts
from lora_kit.audit.duration import most_answering
from lora_kit.audit.end_mark import NAME as END_MARKS
from lora_kit.audit.end_mark import check_end_marks
from lora_kit.audit.findings import Audit, Finding, write_audit
from lora_kit.audit.held_out import NAME as RELOAD
from lora_kit.audit.held_out import check_reload, sample
from lora_kit.audit.stopping import SPARE, Prompt, check_stopping, prompts_of
from lora_kit.audit.weights import check_difference, layer_norms, layers_json
from lora_kit.data.prepare import PreparedData, prepare_data
from lora_kit.errors import LoraKitError
from lora_kit.harness.suite import load_suite
from lora_kit.harness.suite_texts import suite_texts
from lora_kit.model.engine import choose_number_type
from lora_kit.recipe.load import load_resolved
from lora_kit.recipe.schema import Recipe
from lora_kit.train.deadline_record import read_deadline
from lora_kit.train.observe import Observer

SUITE = "quickstart"  # whose prompts are answered where the rows are gone


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows that an adapter was trained with; none where they are gone, and why."""

    data: PreparedData | None
    why: str = ""


def audit_end(target: Path, observer: Observer, *, base: str | None = None) -> Audit:
    """Look at a finished adapter; for a run, what is found goes into its directory.

    Args:
        target: A run directory, or an adapter folder.
        observer: Whom to tell.
        base: Where the adapter's base is now, if it has moved.

    Raises:
        ModelError: There is no adapter, it is damaged, or belongs to another base.
        RunLockedError: A process is at work in the run.
    """
    run = RunDir(target.absolute())
    if not run.is_run():
        return _audited(target, observer, base, most_answering())
    with run.lock():
        folder = finished_adapter(run.path)
        deadline = read_deadline(run)
        most = most_answering(deadline.allotted_seconds) if deadline else most_answering()
        audit = _audited(folder, observer, base, most)
        write_audit(run, "end", audit, adapter=adapter_identity(folder))
        return audit


def adapter_identity(folder: Path) -> str:
    """Hash of all that an adapter folder says of itself; of its weights if another tool has put it there."""
    named = folder / PROVENANCE
    return file_sha256(named if named.is_file() else folder / WEIGHTS)


def _audited(folder: Path, observer: Observer, base: str | None, answering: float) -> Audit:
    began = time.perf_counter()
    observer.phase("audit: reading the adapter and its rows")
    parts = find_adapter(folder, name=folder.name, base=base)
    recipe = _recipe(parts.adapter)
    layers = layer_norms(parts.adapter)
    findings = [check_difference(parts.adapter, layers, recipe)]
    rows = _rows(parts, recipe)
    if rows.data:
        findings.append(check_end_marks(rows.data.train, parts.encoder))
    else:
        findings.append(Finding(END_MARKS, rows.why, "skipped"))
    observer.phase("audit: loading it on its base")
    model = open_parts(parts, device="cpu" if recipe and recipe.train.device == "cpu" else "auto").model
    choose_number_type(model)
    findings.append(_reload(model, rows, parts))
    observer.phase("audit: answering prompts")
    stopping, numbers = check_stopping(model, _prompts(rows, parts), parts.encoder.stop_ids, answering)
    findings.append(stopping)
    facts = {"layers": layers_json(layers), "stopping": numbers}
    return Audit(tuple(findings), time.perf_counter() - began, facts)


def _recipe(adapter: SavedAdapter) -> Recipe | None:
    path = adapter.folder / "recipe.yaml"
    return load_resolved(path) if path.is_file() else None


def _rows(parts: AdapterParts, recipe: Recipe | None) -> _Rows:
    """Prepare the rows again, or say why they can't be had."""
    if recipe is None:
        return _Rows(None, "it has no recipe that names its rows")
    try:
        data = prepare_data(recipe.data, parts.encoder, suites=suite_texts(recipe.evaluate.suites))
    except LoraKitError as error:
        return _Rows(None, f"its rows can't be read: {error.problems[0].found}")
    if data.fingerprint != parts.adapter.provenance.get("data_fingerprint"):
        return _Rows(None, "its rows were changed since it was trained")
    return _Rows(data)


def _reload(model: PreTrainedModel, rows: _Rows, parts: AdapterParts) -> Finding:
    if rows.data is None:
        return Finding(RELOAD, f"it loads; {rows.why}, so its loss was not compared", "skipped")
    few = sample(rows.data.train, rows.data.validation)
    known = parts.adapter.provenance.get("sample")
    return check_reload(model, few, known, flattened=parts.files.family.flattened)


def _prompts(rows: _Rows, parts: AdapterParts) -> list[Prompt]:
    if rows.data is not None:
        return prompts_of(sample(rows.data.train, rows.data.validation))
    asked = parts.encoder.encode_prompts([item.messages for item in load_suite(SUITE).items[:8]])
    return [Prompt(ids, 2 * SPARE) for ids in asked if ids]
