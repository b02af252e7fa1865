"""What a text metric is: a score of one answer against its reference, and how it was computed.

A score is for one answer, a metric for many; a number without its library's
signature can't be compared with anybody else's.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A text metric as a plug-in.

    Args:
        name: Name in the catalogue and in results.
        title: Name for people.
        higher_is_better: Direction.
        score: ``(answer, reference) -> 0..100``; an empty answer scores 0.
        signature: Gives library, version and settings, as its authors want it quoted.
        coverage: Share (0..1) of a text's letters and digits that the metric can see.
    """

    name: str
    title: str
    higher_is_better: bool
    score: Callable[[str, str], float]
    signature: Callable[[], str]
    coverage: Callable[[str], float] = lambda _: 1.0
