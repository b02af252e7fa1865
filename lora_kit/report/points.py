"""The training log as points of curves."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_kit.report.svg import Point
from lora_kit.report.wording import finite


def series(steps: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    """(step, value) of each line of the log where both are finite numbers."""
    found = ((finite(line.get("step")), finite(line.get(key))) for line in steps)
    return [(step, value) for step, value in found if step is not None and value is not None]


def mean_at_ends(points: Sequence[Point]) -> tuple[float, float] | None:
    """Means of the first and of the last tenth of the points; None if there are none."""
    if not points:
        return None
    few = max(1, len(points) // 10)
    first, last = points[:few], points[-few:]
    return sum(y for _, y in first) / few, sum(y for _, y in last) / few
