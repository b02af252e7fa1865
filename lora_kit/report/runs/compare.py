"""Several runs side by side: which keys of their recipes differ, and how they went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_kit.artifacts.manifest import read_object
from lora_kit.artifacts.metrics_tail import MetricsTail
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.errors import LoraKitError, RecipeError
from lora_kit.recipe.load import load_resolved, portable
from lora_kit.report import svg
from lora_kit.report.plots import curves_plot, smooth
from lora_kit.report.points import mean_at_ends, series
from lora_kit.report.runs.summary import RunSummary, summarise
from lora_kit.report.runs.text_plot import Curve
from lora_kit.report.wording import finite, median

ABSENT = "(none)"
MOST_RUNS = 8
_COLOURS = ("blue", "yellow", "green", "red", "magenta", "cyan", "white", "bright_black")
_HEX = ("#1f6feb", "#b45309", "#0b7a57", "#b42318", "#8250df", "#0e7490", "#57606a", "#9a6700")


@dataclass(frozen=True, slots=True)
class RunFigures:
    """How one run went; None where it is not known.

    Args:
        label: Its directory's name, or its path where two share a name.
        summary: How far it is.
        kept_step: The step whose weights are the adapter.
        mean_loss: Mean training loss of the last tenth of the steps, nats per token.
        trained_tokens: Targets in all steps.
        seconds: Time in steps.
        tokens_per_second: Median.
        peak_memory_bytes: Peak.
    """

    label: str
    summary: RunSummary
    kept_step: float | None
    mean_loss: float | None
    trained_tokens: float | None
    seconds: float | None
    tokens_per_second: float | None
    peak_memory_bytes: float | None

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        names = (
            "kept_step",
            "mean_loss",
            "trained_tokens",
            "seconds",
            "tokens_per_second",
            "peak_memory_bytes",
        )
        return {
            "label": self.label,
            **self.summary.to_json(),
            **{name: getattr(self, name) for name in names},
        }


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Runs side by side.

    Args:
        runs: Their figures.
        differences: Key of the recipe to one value a run, only where they are not all equal.
        losses: (step, moving mean of each run's loss there) at about a dozen steps.
        curves: The moving means.
        validations: The held-out losses.
        notes: What could not be compared.
    """

    runs: tuple[RunFigures, ...]
    differences: Mapping[str, tuple[Any, ...]]
    losses: tuple[tuple[int, tuple[float | None, ...]], ...]
    curves: tuple[Curve, ...]
    validations: tuple[Curve, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All but the curves."""
        return {
            "runs": [run.to_json() for run in self.runs],
            "differences": {key: list(values) for key, values in self.differences.items()},
            "losses": [{"step": step, "loss": list(values)} for step, values in self.losses],
            "notes": list(self.notes),
        }

    def to_svg(self) -> str:
        """The curves as a picture in a file of its own; held-out losses are dots."""
        picture = curves_plot(
            [(curve.label, curve.points) for curve in self.curves],
            [curve.points for curve in self.validations],
        )
        colours = "".join(
            f".curve-{n}{{stroke:{hue};fill:none;stroke-width:2}}.dot-{n}{{fill:{hue}}}"
            for n, hue in enumerate(_HEX)
        )
        style = (
            "svg{background:#fff;font:12.5px system-ui,sans-serif}.grid{stroke:#dfe4ea}.axis{stroke:#5d6875}"
            f".muted{{fill:#5d6875}}{colours}"
        )
        head = '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="340" '
        # Ours, and what the picture shows of foreign text is escaped.
        return str(picture).replace("<svg ", head, 1).replace(">", f"><style>{style}</style>", 1) + "\n"


def compare_runs(runs: Sequence[RunDir]) -> RunComparison:
    """Read two or more runs.

    Raises:
        RecipeError: Fewer than two, or too many to tell apart.
    """
    if not 2 <= len(runs) <= MOST_RUNS:
        raise RecipeError(f"{len(runs)} runs to compare", cure=f"name two to {MOST_RUNS} of them")
    names = [run.path.name for run in runs]
    labels = [
        name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True)
    ]
    logs = [MetricsTail(run.metrics).read() for run in runs]
    recipes, notes = _recipes(runs, labels)
    means = [smooth(series(log, "loss")) for log in logs]
    marks = "abcdefgh"
    return RunComparison(
        runs=tuple(map(_figures, labels, runs, logs)),
        differences=_differences(recipes),
        losses=_at_steps(means),
        curves=tuple(map(Curve, labels, means, _COLOURS, marks)),
        validations=tuple(
            Curve(f"{label}, held-out", series(log, "validation_loss"), colour, mark.upper(), joined=False)
            for label, log, colour, mark in zip(labels, logs, _COLOURS, marks, strict=False)
        ),
        notes=tuple(notes),
    )


def _figures(label: str, run: RunDir, log: Sequence[Mapping[str, Any]]) -> RunFigures:
    def values(key: str) -> list[float]:
        return [value for _, value in series(log, key)]

    try:
        kept = finite(read_object(run.state).get("kept_step"))
    except LoraKitError:
        kept = None
    ends, peaks = mean_at_ends(series(log, "loss")), values("peak_memory_bytes")
    return RunFigures(
        label,
        summarise(run, log),
        kept,
        ends and ends[1],
        sum(values("trained_tokens")) or None,
        sum(values("seconds")) or None,
        median(values("tokens_per_second")),
        max(peaks, default=None),
    )


def _recipes(runs: Sequence[RunDir], labels: Sequence[str]) -> tuple[list[dict[str, Any] | None], list[str]]:
    """Each run's recipe, flat; None and a note for one that can't be read."""
    found: list[dict[str, Any] | None] = []
    notes = []
    for run, label in zip(runs, labels, strict=True):
        try:
            found.append(dict(_flat(portable(load_resolved(run.recipe)))))
        except LoraKitError as error:
            found.append(None)
            notes.append(f"Without the recipe of {label}: {error.problems[0]}")
    return found, notes


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, item in value.items():
        is_section = isinstance(item, dict) and not prefix
        leaves += _flat(item, f"{key}.") if is_section else [(f"{prefix}{key}", item)]
    return leaves


def _differences(recipes: Sequence[Mapping[str, Any] | None]) -> dict[str, tuple[Any, ...]]:
    known = [recipe for recipe in recipes if recipe is not None]
    keys = dict.fromkeys(key for recipe in known for key in recipe)
    return {
        key: tuple(ABSENT if recipe is None else recipe.get(key, ABSENT) for recipe in recipes)
        for key in keys
        if any(recipe.get(key, ABSENT) != known[0].get(key, ABSENT) for recipe in known)
    }


def _at_steps(
    means: Sequence[Sequence[svg.Point]], most: int = 12
) -> tuple[tuple[int, tuple[float | None, ...]], ...]:
    longest = max((int(points[-1][0]) for points in means if points), default=0)
    every = max(1, -(-longest // most))
    shown = [step for step in range(1, longest + 1) if (longest - step) % every == 0]
    at = [dict(points) for points in means]
    return tuple((step, tuple(points.get(step) for points in at)) for step in shown)
