"""Predicted against actual, of every finished run on this machine; later plans are corrected by it.

A file of JSON lines in the cache place, the newest last, bounded. What a plan predicts is kept beside it
under the training fingerprint until a run of that recipe ends; predictions are written down uncorrected, or
corrections would correct themselves. Nothing here may fail a run: what can't be read or written is left out.
"""

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

from lora_kit.artifacts.commit import write_file, write_json
from lora_kit.cache_place import cache_dir, locked
from lora_kit.errors import LoraKitError
from lora_kit.train.runtime import runtime_identity

FORMAT = 1
MOST_LINES = 200
MOST_PLANS = 50
RECENT = 9  # runs of a kind that correct a plan
FURTHEST = 4.0  # a ratio beyond this is another thing than a correction
QUANTITIES = ("step_seconds", "other_seconds", "memory_bytes")


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a run takes.

    Args:
        step_seconds: In its steps.
        other_seconds: Beside them: starting, validating, saving; None if unknown.
        memory_bytes: At its peak.
    """

    step_seconds: float | None
    other_seconds: float | None
    memory_bytes: float | None


@dataclass(frozen=True, slots=True)
class Correction:
    """What earlier runs say about a prediction.

    Args:
        runs: How many of this kind, on this machine.
        factors: Of each quantity; 1 where nothing is known.
        spread: Relative, of the runs' whole time around its median; None with fewer than three.
    """

    runs: int
    factors: Mapping[str, float]
    spread: float | None = None

    def applied(self, raw: Amounts) -> Amounts:
        """Return a prediction, corrected."""
        corrected = {
            name: None if value is None else value * self.factors[name] for name, value in asdict(raw).items()
        }
        return Amounts(**corrected)


NOTHING_KNOWN = Correction(0, dict.fromkeys(QUANTITIES, 1.0))


def machine_name() -> str:
    """Return a short name of this machine's kind: processor or GPU, threads, memory."""
    about = runtime_identity()
    memory = round(psutil.virtual_memory().total / 2**30)
    key = [about["hardware"], about["threads"], _processor(), memory]
    return sha256(json.dumps(key).encode()).hexdigest()[:12]


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _folder() -> Path:
    return cache_dir() / "planning"


def ledger_file() -> Path:
    """Return where the ledger is, whether it exists or not."""
    return _folder() / "ledger.jsonl"


def keep_prediction(fingerprint: str, kind: str, raw: Amounts) -> bool:
    """Keep what a plan predicts for the run that may follow; False if it can't be written."""
    folder = _folder() / "plans"
    content = {"format_version": FORMAT, "machine": machine_name(), "kind": kind, "predicted": asdict(raw)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{fingerprint}.json", content)
        plans = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for old in plans[:-MOST_PLANS]:
            old.unlink(missing_ok=True)
    except (OSError, LoraKitError):
        return False
    return True


def kept_prediction(fingerprint: str) -> tuple[str, Amounts] | None:
    """Return kind and amounts of the newest plan of a recipe on this machine; None if there is none."""
    try:
        content = json.loads((_folder() / "plans" / f"{fingerprint}.json").read_text("utf-8"))
        same = content["format_version"] == FORMAT and content["machine"] == machine_name()
        kind, raw = content["kind"], _amounts(content["predicted"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (kind, raw) if same and isinstance(kind, str) else None


def append(fingerprint: str, kind: str, predicted: Amounts, actual: Amounts, date: str) -> bool:
    """Write down one run; False if it can't be written."""
    line = {
        "format_version": FORMAT,
        "date": date,
        "machine": machine_name(),
        "kind": kind,
        "training_fingerprint": fingerprint,
        "predicted": asdict(predicted),
        "actual": asdict(actual),
    }
    place = ledger_file()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with locked(place.with_name("ledger.lock")):
            lines = [*_lines(place), json.dumps(line)][-MOST_LINES:]
            write_file(place, "".join(f"{one}\n" for one in lines).encode())
    except (OSError, LoraKitError):
        return False
    return True


def _lines(place: Path) -> list[str]:
    """Return the lines that are whole: a damaged one goes with the next run."""
    try:
        lines = place.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if _entry(line) is not None]


def _entry(line: str) -> tuple[str, str, Amounts, Amounts] | None:
    """Read machine, kind, predicted and actual; None if the line is damaged."""
    try:
        content = json.loads(line)
        machine, kind = content["machine"], content["kind"]
        entry = machine, kind, _amounts(content["predicted"]), _amounts(content["actual"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if isinstance(machine, str) and isinstance(kind, str) else None


def _amounts(content: Mapping[str, Any]) -> Amounts:
    values = [content[name] for name in QUANTITIES]
    for value in values:
        if value is not None and not (type(value) in (int, float) and 0 < value < float("inf")):
            raise ValueError(f"{value} is no amount")
    return Amounts(*values)


def correction(kind: str) -> Correction:
    """Return what this machine's recent runs of a kind say."""
    machine, place = machine_name(), ledger_file()
    try:
        entries = [entry for line in _lines(place) if (entry := _entry(line)) is not None]
    except OSError:
        entries = []
    pairs = [entry[2:] for entry in entries if entry[:2] == (machine, kind)][-RECENT:]
    factors = {name: _median([_ratio(pair, name) for pair in pairs]) for name in QUANTITIES}
    return Correction(len(pairs), factors, _spread(pairs))


def _ratio(pair: Sequence[Amounts], name: str) -> float | None:
    predicted, actual = (getattr(one, name) for one in pair)
    return actual / predicted if predicted and actual else None


def _median(ratios: Sequence[float | None]) -> float:
    known = [ratio for ratio in ratios if ratio is not None]
    return min(max(statistics.median(known), 1 / FURTHEST), FURTHEST) if known else 1.0


def _spread(pairs: Sequence[Sequence[Amounts]]) -> float | None:
    """How far the runs' times lie from what a correction by their median would have said."""
    ratios = [ratio for pair in pairs if (ratio := _ratio(pair, "step_seconds")) is not None]
    if len(ratios) < 3:
        return None
    middle = statistics.median(ratios)
    return sorted(abs(ratio / middle - 1) for ratio in ratios)[int(0.9 * (len(ratios) - 1))]
