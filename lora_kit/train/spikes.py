"""A loss that jumps and is still finite: told, and never acted on, for most such steps are one odd row."""

from collections import deque
from collections.abc import Iterable
from statistics import median

FACTOR = 10.0  # times the median
WINDOW = 50  # steps that the median is over
FEWEST = 5  # steps before which there is no median to speak of


class LossWatch:
    """Compares each loss with the median of those before; the same for a resumed run.

    Args:
        losses: Nats per trained token of the steps that are done, in order.
    """

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._losses = deque(losses, maxlen=WINDOW)

    def look(self, loss: float) -> float:
        """Take a step's loss in; return how many times the median it is if that is a spike, else 0."""
        usual = median(self._losses) if len(self._losses) >= FEWEST else 0.0
        self._losses.append(loss)
        return round(loss / usual, 1) if 0 < usual * FACTOR < loss else 0.0
