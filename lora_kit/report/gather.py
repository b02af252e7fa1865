"""Everything that a run has left on disk, as far as it is there; what is missing is said, not guessed.

Only the training log is required. A part that is absent or damaged becomes one line
in the report, because a report on a run that went wrong is worth most.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.artifacts.adapter import PROVENANCE
from lora_kit.artifacts.manifest import read_object
from lora_kit.artifacts.metrics_log import stream_metrics
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.errors import DataError, ModelError
from lora_kit.report.evaluation_files import RESULTS, EvaluationFiles, read_evaluation
from lora_kit.report.ledger import PER_ROW, Ledger, Visits, build_ledger

CERTIFICATE = "certificate.json"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run.

    Args:
        path: Its directory.
        steps: Lines of metrics.jsonl, without what they say of each row.
        ledger: What they say of each row; None if they don't.
        state: run.json.
        recipe: Text of recipe.yaml.
        data: data_report.json.
        adapter: adapter/lora_kit.json.
        certificate: merged/certificate.json.
        budget: token_budget.json; empty where nothing was measured and no allocation failed.
        audit: audit.json; empty where there was none.
        evaluations: Suite to its results.json and the judges' words.
        absent: What is not there or can't be read, one line each.
    """

    path: Path
    steps: tuple[Mapping[str, Any], ...]
    ledger: Ledger | None
    state: Mapping[str, Any]
    recipe: str
    data: Mapping[str, Any]
    adapter: Mapping[str, Any]
    certificate: Mapping[str, Any]
    budget: Mapping[str, Any]
    audit: Mapping[str, Any]
    evaluations: Mapping[str, EvaluationFiles]
    absent: tuple[str, ...]


def gather(run: RunDir) -> RunFacts:
    """Read a run directory.

    Raises:
        DataError: There is no training log, or it is damaged.
        MachineError: The log can't be read.
    """
    if not run.metrics.is_file():
        raise DataError(
            "there is nothing to report on yet: the run has no metrics.jsonl",
            where=str(run.path),
            cure=f"train it first: lora-kit train {run.path}",
        )
    reader = _Reader(run.path)
    evaluations = {
        file.parent.name: found
        for file in sorted(run.evaluations.glob("*/results.json"))
        if (found := reader.evaluation(file.parent))
    }
    if not evaluations and not reader.absent:
        reader.absent.append("It has not been evaluated yet.")
    steps, ledger = _read_log(run.metrics)
    return RunFacts(
        path=run.path,
        steps=steps,
        ledger=ledger,
        state=reader.object(run.state, "the run's state"),
        recipe=reader.text(run.recipe, "the recipe"),
        data=reader.object(run.data_report, "the data report"),
        adapter=reader.object(run.adapter / PROVENANCE, "the adapter"),
        certificate=reader.object(run.merged / CERTIFICATE, "the merged model"),
        budget=reader.object(run.token_budget, "the token budget") if run.token_budget.is_file() else {},
        audit=reader.object(run.audit, "the audit") if run.audit.is_file() else {},
        evaluations=evaluations,
        absent=tuple(reader.absent),
    )


def _read_log(path: Path) -> tuple[tuple[Mapping[str, Any], ...], Ledger | None]:
    """Read it once; of a million rows, only numbers stay in memory."""
    steps, visits = [], Visits()
    for line in stream_metrics(path):
        visits.add(line)
        steps.append({key: value for key, value in line.items() if key not in PER_ROW})
    return tuple(steps), build_ledger(visits)


class _Reader:
    """Reads files, and keeps a list of what could not be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.absent: list[str] = []

    def object(self, path: Path, what: str) -> dict[str, Any]:
        """A JSON object, empty if it is not there."""
        try:
            return read_object(path)
        except ModelError as error:
            self._note(path, what, error.problems[0].found)
            return {}

    def evaluation(self, folder: Path) -> EvaluationFiles | None:
        """An evaluation, None if its results can't be read or are empty."""
        try:
            found = read_evaluation(folder)
        except ModelError as error:
            self._note(folder / RESULTS, "an evaluation", error.problems[0].found)
            return None
        return found if found.results else None

    def text(self, path: Path, what: str) -> str:
        """A text, empty if it is not there."""
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            self._note(path, what, "is missing" if isinstance(error, FileNotFoundError) else "can't be read")
            return ""

    def _note(self, path: Path, what: str, found: str) -> None:
        name = path.relative_to(self.root).as_posix()
        self.absent.append(f"Without {what}: {name} {found}.")
