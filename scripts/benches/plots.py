"""Plots: panels side by side, each with a bar a side (dots are the single turns) or a line a side."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Args:
        title: What is measured, and its unit.
        sides: Figures of each side: one a turn, or one a point of ``at``.
        at: Where the points of lines stand; None for bars.
        below: What ``at`` counts.
        band: Two heights between which figures are to lie.
        logarithmic: Which axes are: ``""``, ``"x"`` or ``"y"``.
    """

    title: str
    sides: Mapping[str, Sequence[float]]
    at: Sequence[float] | None = None
    below: str = ""
    band: tuple[float, float] | None = None
    logarithmic: str = ""


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Draw the panels into a file."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    canvas, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.2), layout="constrained", squeeze=False
    )
    for one, panel in zip(axes[0], panels, strict=True):
        _bars(one, panel) if panel.at is None else _lines(one, panel, panel.at)
        one.set_title(panel.title, fontsize="medium")
    canvas.savefig(path)
    plt.close(canvas)


def _bars(axes: Any, panel: Panel) -> None:  # noqa: ANN401 - matplotlib comes late
    for place, turns in enumerate(panel.sides.values()):
        axes.bar(place, statistics.median(turns), width=0.6)
        if len(turns) > 1:
            axes.plot([place] * len(turns), turns, "k.")
    axes.set_xticks(range(len(panel.sides)), list(panel.sides))


def _lines(axes: Any, panel: Panel, at: Sequence[float]) -> None:  # noqa: ANN401
    for name, values in panel.sides.items():
        axes.plot(at, values, "o-", label=name)
    if panel.band:
        axes.axhspan(*panel.band, alpha=0.15)
    if panel.logarithmic:
        getattr(axes, f"set_{panel.logarithmic}scale")("log")
    if panel.logarithmic != "y":
        axes.set_ylim(bottom=0)
    axes.set_xticks(list(at), [f"{value:g}" for value in at])
    axes.minorticks_off()
    axes.set_xlabel(panel.below)
    if len(panel.sides) > 1:
        axes.legend()
