"""The pages of one evaluation: beside its results.json, or as a part of its run's report."""

from pathlib import Path

from lora_kit.artifacts.commit import write_file
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.errors import DataError
from lora_kit.report.evaluation import SuiteView, suite_view
from lora_kit.report.evaluation_files import RESULTS, read_evaluation
from lora_kit.report.self_contained import render_page
from lora_kit.report.write import STYLES, markdown, write_report

HTML, MARKDOWN = "report.html", "report.md"


def report_on(folder: Path) -> list[Path]:
    """Write what belongs to an evaluation's folder: its run's report, or pages of its own.

    Args:
        folder: With results.json.

    Returns:
        The HTML page and the Markdown file.

    Raises:
        DataError: results.json is not what the harness writes.
        ModelError: It is missing or damaged.
        MachineError: The disk can't take it.
    """
    run = run_of(folder)
    return write_report(run) if run else write_evaluation(folder)


def run_of(folder: Path) -> RunDir | None:
    """The run that an evaluation's folder belongs to, if it has a log to report on."""
    parent = folder.absolute().parent
    run = RunDir(parent.parent)
    return run if parent == run.evaluations and run.is_run() and run.metrics.is_file() else None


def write_evaluation(folder: Path) -> list[Path]:
    """Write report.html and report.md beside results.json, each whole or not at all.

    Raises:
        DataError: results.json is not what the harness writes.
        ModelError: It is missing or damaged.
        MachineError: The disk can't take it.
    """
    try:
        view = suite_view(read_evaluation(folder))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        found = f"not what an evaluation writes ({type(error).__name__}: {error})"
        raise DataError(found, where=str(folder / RESULTS)) from error
    pages = {folder / HTML: evaluation_page(view), folder / MARKDOWN: markdown("evaluation", suite=view)}
    for path, content in pages.items():
        write_file(path, content.encode("utf-8", "replace"))
    return list(pages)


def evaluation_page(view: SuiteView) -> str:
    """One self-contained HTML page."""
    return render_page("evaluation", styles=STYLES, script="report", suite=view)
