"""Runs tasks of lm-eval on base and adapter; its numbers become a section of results.json."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_kit.assemble import Opened
from lora_kit.errors import DataError, Problem
from lora_kit.harness.engine import Progress
from lora_kit.harness.extras import import_extra

MODULE, EXTRA = "lm_eval", "lm-eval"
Row = dict[str, Any]


def run_lm_eval(
    opened: Opened,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    batch_size: int = 16,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure tasks on the base, and on its adapter if it has one.

    Args:
        opened: The model.
        tasks: Names of lm-eval's tasks, groups or tags, or of the folder's.
        folder: More tasks as YAML files.
        batch_size: Prompts that are answered at once.
        on_progress: Told (done, total) of each kind of request.

    Returns:
        ``{"library", "tasks": [{task, model, metric, value, stderr, n}], "truncated": {model: contexts}}``.

    Raises:
        MachineError: lm-eval is not installed.
        DataError: No such task, or one that can't be run.
    """
    library = import_extra(MODULE, EXTRA)
    manager = _manager(tasks, folder)
    from lora_kit.harness.lm_eval_model import LmEvalModel

    rows: list[Row] = []
    truncated = {}
    sides = [("base", False)] if opened.adapter is None else [("base", False), ("tuned", True)]
    for name, adapter in sides:
        model = LmEvalModel(
            opened.model, opened.encoder, adapter=adapter, batch_size=batch_size, on_progress=on_progress
        )
        try:
            found = library.simple_evaluate(
                model=model, tasks=list(tasks), task_manager=manager, log_samples=False, bootstrap_iters=1000
            )
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            first_line = str(error).strip().split("\n", 1)[0][:200]
            found_line = f"lm-eval could not run it ({type(error).__name__}: {first_line})"
            raise DataError(found_line, key=",".join(tasks)) from error
        rows += rows_of(found, name)
        truncated[name] = model.truncated
    return {"library": f"lm-eval {library.__version__}", "tasks": rows, "truncated": truncated}


def rows_of(found: Mapping[str, Any], model: str) -> list[Row]:
    """One row a task and metric.

    Args:
        found: What ``simple_evaluate`` returned; metrics are named ``metric,filter``.
        model: Whose results they are.
    """
    rows = []
    for task, values in found["results"].items():
        size = found.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in values.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            title = metric if kind == "none" else f"{metric} ({kind})"
            error = _finite(values.get(f"{metric}_stderr,{kind}"))
            rows.append(
                {
                    "task": task,
                    "model": model,
                    "metric": title,
                    "value": _finite(value),
                    "stderr": error,
                    "n": size,
                }
            )
    return rows


def _finite(value: object) -> float | None:
    """A number for JSON; lm-eval writes "N/A" where it has no standard error."""
    known = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]


def _manager(tasks: Sequence[str], folder: Path | None) -> Any:  # noqa: ANN401
    if folder is not None and not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder), key="--lm-eval-tasks")
    build = import_extra("lm_eval.tasks", EXTRA).TaskManager
    if folder is not None:
        # Reading lm-eval's own thousands of tasks takes seconds; often none of them is meant.
        manager = build(include_path=str(folder), include_defaults=False)
        if tasks and all(manager.match_tasks([name]) for name in tasks):
            return manager
    manager = build(include_path=None if folder is None else str(folder))
    cure = "see: python -m lm_eval ls tasks"
    problems = [
        Problem(f"lm-eval has no task '{name}'", key="--lm-eval", cure=cure)
        for name in tasks
        if not manager.match_tasks([name])
    ]
    if problems or not tasks:
        raise DataError.collect(problems or [Problem("no task is named", key="--lm-eval", cure=cure)])
    return manager
