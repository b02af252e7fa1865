"""What a text metric is: a score of one answer against its reference, and how it was computed.

A score is for one answer, a metric for many; a number without its library's
signature can't be compared with anybody else's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class Metric:
    """A text metric as a plug-in.

    Args:
        name: Name in the catalogue and in results.
        title: Name for people.
        higher_is_better: Direction; None for one without a better side.
        score: ``(answer, reference) -> 0..100``; an empty answer scores 0.
        signature: Gives library, version and settings, as its authors want it quoted.
        coverage: Share (0..1) of a text's letters and digits that the metric can see.
        compares: Whether it looks at the reference; False for one that describes the answer alone.
        extra: The optional dependencies that it needs (``pip install 'lora-kit[EXTRA]'``); empty for none.
        module: What those dependencies are imported as.
    """

    name: str
    title: str
    higher_is_better: bool | None
    score: Callable[[str, str], float]
    signature: Callable[[], str]
    coverage: Callable[[str], float] = lambda _: 1.0
    compares: bool = True
    extra: str = ""
    module: str = ""

    @property
    def missing(self) -> str:
        """What to do before it can be used; empty if nothing."""
        if not self.extra or find_spec(self.module) is not None:
            return ""
        return f"pip install 'lora-kit[{self.extra}]'"

    def best(self, answer: str, references: Sequence[str]) -> float:
        """Score against the reference that suits the answer best."""
        scores = [self.score(answer, reference) for reference in references]
        return min(scores) if self.higher_is_better is False else max(scores)
