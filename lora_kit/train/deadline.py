"""How many steps there is time for: solved from measured speed, again after every step, without a clock.

A plan is changed seldom: where its end would be late, or where there is clearly time for more. So the
learning rate's way to zero is bent a few times early, hardly at all later, and its end is the last step.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from lora_kit.train.plan import TrainPlan

NEAR = 32  # steps whose own tokens are counted; the rest are taken to be of mean length
RECENT = 24  # steps that tell the speed
FRESH, CHANGED = 4, 1.25  # steps in a row that are by so much slower, or quicker, are another speed
PAUSE = 4.0  # times the usual: one step that is so much slower was a pause, two are another speed
FORWARD = 0.45  # of the time of a token, for one that needs no gradient
LATE, LATE_SHARE = 0.5, 0.06  # of the margin, and of the work left, that a plan may be late
EARLY_STEPS, EARLY = 1.25, 0.1  # steps, and share of what is left, that must be to spare to lengthen it
MARGIN, STEP_MARGIN, MOST_MARGIN = 0.01, 0.5, 0.04  # of the allotted time; of a step; of the allotted time


@dataclass(slots=True)
class Pace:
    """Seconds a token takes.

    Args:
        prior: What is believed before the first step; 0 if nothing is.
        made: Seconds per token, and tokens, of the last steps.
    """

    prior: float
    made: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, tokens: int, seconds: float) -> None:
        """Note a step; when some in a row say that the speed is another one, older ones are forgotten."""
        self.made.append((seconds / max(tokens, 1), tokens))
        ratios = [ratio for ratio, _ in self.made]
        fresh = ratios[-FRESH:]
        if len(ratios) > FRESH:
            usual = median(ratios[:-FRESH])
            if min(fresh) > CHANGED * usual or max(fresh) < usual / CHANGED:
                for _ in ratios[:-FRESH]:
                    self.made.popleft()

    @property
    def seconds(self) -> float:
        """The mean of the last steps without pauses."""
        if not self.made:
            return self.prior
        usual = median(ratio for ratio, _ in self.made)
        last = [*self.made][-2:]
        if min(ratio for ratio, _ in last) <= PAUSE * usual:
            last = [(ratio, tokens) for ratio, tokens in self.made if ratio <= PAUSE * usual]
        return sum(ratio * tokens for ratio, tokens in last) / sum(tokens for _, tokens in last)


@dataclass(frozen=True, slots=True)
class Timetable:
    """What the rest of a run takes.

    Args:
        plan: Which rows at which step, when to validate and save; its number of steps does not matter.
        tokens: Of a step.
        mean_tokens: Of all steps.
        pace: Seconds a token.
        validation: Seconds of one.
        saving: Seconds of a checkpoint.
        ending: Seconds from the last checkpoint to the end of the command.
    """

    plan: TrainPlan
    tokens: Callable[[int], int]
    mean_tokens: float
    pace: float
    validation: float
    saving: float
    ending: float

    @property
    def step(self) -> float:
        """Seconds of a step of mean length."""
        return self.pace * self.mean_tokens

    def seconds(self, done: int, steps: int) -> float:
        """From the update of step ``done`` to the end of the command, the last step being ``steps``."""
        near = min(steps, done + NEAR)
        tokens = sum(self.tokens(step) for step in range(done + 1, near + 1))
        return self._seconds(done, steps, tokens)

    def fitting(self, done: int, available: float, most: int) -> int:
        """Return the last step that ends in time; ``done`` if no further one does.

        Args:
            done: Steps that are made.
            available: Seconds.
            most: No more steps than this.
        """
        tokens, near = [0], min(most, done + NEAR)
        for step in range(done + 1, near + 1):
            tokens.append(tokens[-1] + self.tokens(step))
        low, high = done, max(most, done)
        while low < high:
            middle = (low + high + 1) // 2
            if self._seconds(done, middle, tokens[min(middle, near) - done]) <= available:
                low = middle
            else:
                high = middle - 1
        return low

    def changed(self, done: int, steps: int, available: float, margin: float, most: int) -> int:
        """Return the number of steps from here on; the same as long as that will do.

        Args:
            done: Steps that are made, at least one.
            steps: As planned.
            available: Seconds, without the margin.
            margin: Seconds that are kept for what can't be foreseen.
            most: No more steps than this.
        """
        needed = self.seconds(done, steps)
        work = needed - self.ending
        if needed > available + max(LATE * margin, LATE_SHARE * work):
            return self.fitting(done, available, most=steps)
        spare = max(EARLY_STEPS * self.step, EARLY * work)
        if done < steps < most and available - needed > spare:
            return self.fitting(done, available, most=most)
        return steps

    def margin(self, allotted: float) -> float:
        """Seconds that are kept: a part of all, and of a step, for the last one may be slow."""
        return MARGIN * allotted + min(STEP_MARGIN * self.step, MOST_MARGIN * allotted)

    def _seconds(self, done: int, steps: int, near_tokens: int) -> float:
        far = max(0, steps - done - NEAR)
        work = self.pace * (near_tokens + far * self.mean_tokens)
        spec = self.plan.spec
        checks = 0
        if self.plan.has_validation:
            checks = 1 + (_between(done, steps, spec.validate_every) if spec.validate_every else 0)
        saves = max(1, checks) + _between(done, steps, spec.save_every)
        return work + checks * self.validation + saves * self.saving + self.ending


def _between(done: int, steps: int, every: int) -> int:
    """Multiples of ``every`` from ``done``, whose own part is still to come, to the step before the last."""
    return max(0, (steps - 1) // every - (max(done, 1) - 1) // every)
