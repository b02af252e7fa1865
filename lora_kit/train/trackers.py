"""Trackers (TensorBoard, W&B, MLflow, trackio) through Accelerate's classes, beside a run, never in its way.

Each tracker has a thread of its own and a queue. A server that is slow, away or asks for a password costs
records of the tracker, never a step of the run; what failed is told once, at the end. metrics.jsonl is the
record that counts. Each service reads its own settings (``WANDB_*``, ``MLFLOW_TRACKING_URI``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from lora_kit.errors import MachineError, Problem
from lora_kit.train.observe import Observer, StepRecord

WAITING = 1000  # records that a slow tracker may be behind; more are dropped
LAST_SECONDS = 10.0  # that a run waits at its end for what is still to be sent
_FIGURES = ("epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second", "peak_memory_bytes")
Record = tuple[dict[str, float], int]


def require_trackers(names: Sequence[str]) -> None:
    """Stop before the first step if a tracker's library is missing.

    Raises:
        MachineError: With the command that installs each.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise MachineError.collect(
            [
                Problem(
                    f"{name} is not installed", key="engine.trackers", cure=f"pip install 'lora-kit[{name}]'"
                )
                for name in missing
            ]
        )


@contextmanager
def tracked(
    observer: Observer, names: Sequence[str], *, project: str, folder: Path, settings: Mapping[str, Any]
) -> Iterator[Observer]:
    """Yield an observer that tells the trackers too; the one that was given where there are none.

    Args:
        observer: Whom everything is passed on to.
        names: Of trackers, as Accelerate knows them.
        project: What the services show it as.
        folder: Where trackers that write files put them.
        settings: The recipe, by section.
    """
    if not names or not PartialState().is_main_process:
        yield observer
        return
    feeds = [_Feed(name, _opener(name, project, folder), _flat(settings)) for name in names]
    try:
        yield _Tracked(observer, feeds)
    finally:
        for feed in feeds:
            if problem := feed.close():
                observer.noted(f"{feed.name} missed steps of this run: {problem}")


def _opener(name: str, project: str, folder: Path) -> Callable[[], Any]:
    kind = LOGGER_TYPE_TO_CLASS[name]
    if kind.requires_logging_directory:
        return lambda: kind(project, logging_dir=folder)
    return lambda: kind(project)


def _flat(settings: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Keys with dots, and values that every service takes."""
    leaves = (
        (f"{section}.{key}", value)
        for section, keys in settings.items()
        for key, value in (keys.items() if isinstance(keys, dict) else [("", keys)])
    )
    return {
        name.rstrip("."): value if isinstance(value, str | int | float | bool) else str(value)
        for name, value in leaves
    }


class _Feed:
    """One tracker, fed by a thread that the run doesn't wait for."""

    def __init__(self, name: str, opened: Callable[[], Any], settings: dict[str, Any]) -> None:
        self.name = name
        self._open, self._settings = opened, settings
        self._queue: Queue[Record | None] = Queue(WAITING)
        self._problem = ""
        self._thread = Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        """Hand over a record, or drop it."""
        try:
            self._queue.put_nowait(record)
        except Full:
            self._problem = self._problem or "it did not keep up"

    def close(self) -> str:
        """Wait a little for the rest; return what went wrong, empty if nothing did."""
        with suppress(Full):
            self._queue.put_nowait(None)
        self._thread.join(LAST_SECONDS)
        return self._problem or ("it did not answer" if self._thread.is_alive() else "")

    def _work(self) -> None:
        try:
            tracker = self._open()
            tracker.start()
            with suppress(Exception):  # a tracker without the recipe is better than none
                tracker.store_init_configuration(self._settings)
            while (record := self._queue.get()) is not None:
                values, step = record
                tracker.log(values, step=step)
            tracker.finish()
        except BaseException as error:  # noqa: BLE001 - also SystemExit: whatever a service does, the run goes on
            self._problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]


class _Tracked:
    """An observer that passes everything on, and each step to the trackers too."""

    def __init__(self, observer: Observer, feeds: Sequence[_Feed]) -> None:
        self._observer = observer
        self._feeds = feeds

    def phase(self, text: str) -> None:
        """Pass it on."""
        self._observer.phase(text)

    def noted(self, text: str) -> None:
        """Pass it on."""
        self._observer.noted(text)

    def started(self, *, step: int, steps: int, notes: list[str]) -> None:
        """Pass it on."""
        self._observer.started(step=step, steps=steps, notes=notes)

    def planned(self, *, steps: int, seconds: float, ends: str) -> None:
        """Pass it on."""
        self._observer.planned(steps=steps, seconds=seconds, ends=ends)

    def stepped(self, record: StepRecord) -> None:
        """Pass it on, and tell the trackers."""
        values = {name: float(getattr(record, name)) for name in _FIGURES}
        if record.validation_loss is not None:
            values["validation_loss"] = record.validation_loss
        for feed in self._feeds:
            feed.put((values, record.step))
        self._observer.stepped(record)

    def saved(self, step: int) -> None:
        """Pass it on."""
        self._observer.saved(step)

    def progress(self, done: int, total: int) -> None:
        """Pass it on."""
        self._observer.progress(done, total)
