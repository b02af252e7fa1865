"""The directory of one run: where each thing lies, and who may work in it, one process at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.artifacts.commit import failpoint, sweep, write_json
from lora_kit.artifacts.disk import disk_errors
from lora_kit.artifacts.folder_lock import held
from lora_kit.artifacts.manifest import read_object
from lora_kit.errors import RecipeError

STATE_FORMAT = 1
_OUR_LITTER = (".tmp-", ".old-", ".trash-", ".lock")


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths of a run directory.

    Args:
        path: The directory itself, absolute.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def data_report(self) -> Path:
        """What became of every row."""
        return self.path / "data_report.json"

    @property
    def metrics(self) -> Path:
        """One JSON line a step."""
        return self.path / "metrics.jsonl"

    @property
    def token_budget(self) -> Path:
        """Most tokens that are computed at once, where the recipe's number alone does not say it."""
        return self.path / "token_budget.json"

    @property
    def audit(self) -> Path:
        """What was found before the first step, and in the finished adapter."""
        return self.path / "audit.json"

    @property
    def deadline(self) -> Path:
        """How many steps there was time for, as it was decided; only with a deadline."""
        return self.path / "deadline.json"

    @property
    def checkpoints(self) -> Path:
        """``step-NNNNNN/`` directories."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The result, in PEFT's format."""
        return self.path / "adapter"

    @property
    def merged(self) -> Path:
        """Base and adapter as one model."""
        return self.path / "merged"

    @property
    def evaluations(self) -> Path:
        """``<suite>/results.json``."""
        return self.path / "evaluations"

    @property
    def report_html(self) -> Path:
        """The report, one self-contained file."""
        return self.path / "report.html"

    @property
    def report_md(self) -> Path:
        """The report as Markdown."""
        return self.path / "report.md"

    @property
    def ledger(self) -> Path:
        """First and last loss of each row, for programs; written with the report."""
        return self.path / "ledger.csv"

    @property
    def state(self) -> Path:
        """How far the run is: ``format_version``, ``name``, ``status`` and what the stages add."""
        return self.path / "run.json"

    @property
    def lock_file(self) -> Path:
        """Locked while a process works here; names that process."""
        return self.path / ".lock"

    def is_run(self) -> bool:
        """Whether this directory was made by lora_kit."""
        return self.state.is_file() or (self.recipe.is_file() and self.checkpoints.is_dir())

    def read_state(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises:
            ModelError: Missing or damaged.
        """
        return read_object(self.state)

    def update_state(self, **changes: Any) -> None:  # noqa: ANN401 - JSON values
        """Change fields of ``run.json``; a change of nothing writes nothing.

        Raises:
            ModelError: It is damaged.
            MachineError: Disk full, read-only, or gone.
        """
        state = self.read_state()
        changed = {**state, **changes}
        if changed != state:
            write_json(self.state, changed)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out for the block, and clear what a killed one left.

        Raises:
            RunLockedError: Another process is at work here; names its id, host and start.
            MachineError: The directory can't be written to, or its file system has no locks.
        """
        with held(self.lock_file, option="--run-dir"):
            with disk_errors(self.path):
                for folder in (self.path, self.checkpoints, self.evaluations, *self.evaluations.glob("*/")):
                    sweep(folder)
            yield


def open_run(path: Path, *, create: bool = True) -> RunDir:
    """Open a run directory, making it if need be. An existing run is not touched.

    Args:
        path: May be relative; ``..`` and a trailing slash are fine.
        create: Make it if it does not exist or is empty.

    Raises:
        RecipeError: It is something else than a run, or does not exist and ``create`` is False.
        MachineError: It can't be made or written to.
    """
    run = RunDir(Path(os.path.abspath(path)))  # noqa: PTH100 - resolve() would follow the user's links
    with disk_errors(run.path):
        if run.is_run():
            return run
        _refuse_strangers(run.path, create=create)
        run.path.mkdir(parents=True, exist_ok=True)
        failpoint("run.after_create")
        run.checkpoints.mkdir(exist_ok=True)
        run.evaluations.mkdir(exist_ok=True)
        write_json(run.state, {"format_version": STATE_FORMAT, "name": run.path.name, "status": "created"})
    return run


def _refuse_strangers(path: Path, *, create: bool) -> None:
    if not create:
        found = "is not a run of lora_kit" if path.exists() else "no such run directory"
        raise RecipeError(found, where=str(path), cure="start one with: lora-kit train RECIPE")
    if path.exists() and not path.is_dir():
        raise RecipeError("is a file, not a directory", where=str(path), cure="choose another --run-dir")
    if path in (Path(path.anchor), Path.cwd(), Path.home()):
        raise RecipeError(
            "is the root, the home or the current directory, not a place for a run",
            where=str(path),
            cure="choose a --run-dir below it",
        )
    if path.is_dir() and any(_is_foreign(entry) for entry in path.iterdir()):
        raise RecipeError(
            "not empty and not a lora_kit run", where=str(path), cure="choose a --run-dir that does not exist"
        )


def _is_foreign(entry: Path) -> bool:
    """Whether this is anything but what our own kill between mkdir and run.json leaves."""
    ours_and_empty = (
        entry.name in ("checkpoints", "evaluations") and entry.is_dir() and not any(entry.iterdir())
    )
    return not (ours_and_empty or entry.name.startswith(_OUR_LITTER))
