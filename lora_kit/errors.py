"""Every error that a user can meet, and the exit code that each owns.

::

    LoraKitError            1   a mistake of ours
    ├── RecipeError         2   recipe or usage
    ├── DataError           3   a row, a file of rows, a suite
    ├── ModelError          4   base, adapter, tokenizer, merged model
    ├── MachineError        5   disk, permission, memory, network
    ├── DivergedError       6   training produced a number that is not finite
    ├── IncompleteError     7   an evaluation without all its verdicts
    ├── RunLockedError     10   another process works in the run directory
    └── InterruptedRunError 130 / 143   stopped by SIGINT / SIGTERM after a checkpoint

One problem is one line: where, key, what was found, then the cure. Errors are
collected and raised once, so that a user mends all of them in one go.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Args:
        found: What was found, in lower case, without a full stop.
        where: ``file``, ``file:line`` or ``file:row``; empty if there is none.
        key: Dotted key or field; empty if there is none.
        cure: What the user does about it; empty if the finding says it all.
    """

    found: str
    where: str = ""
    key: str = ""
    cure: str = ""

    def __str__(self) -> str:
        head = ": ".join(part for part in (self.where, self.key, self.found) if part)
        line = f"{head}; {self.cure}" if self.cure else head
        return " ".join(line.split())


class LoraKitError(Exception):
    """Base of all errors that lora_kit raises on purpose."""

    exit_code = 1

    def __init__(self, found: str, *, where: str = "", key: str = "", cure: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(found, where, key, cure),)
        super().__init__(str(self.problems[0]))

    @classmethod
    def collect(cls, problems: Sequence[Problem]) -> Self:
        """Build one error out of everything that was found (at least one problem)."""
        first = problems[0]
        error = cls(first.found, where=first.where, key=first.key, cure=first.cure)
        error.problems = tuple(problems)
        error.args = ("\n".join(str(problem) for problem in problems),)
        return error


class RecipeError(LoraKitError):
    """The recipe or the command line is wrong."""

    exit_code = 2


class DataError(LoraKitError):
    """A row, a file of rows or a suite is wrong."""

    exit_code = 3


class ModelError(LoraKitError):
    """A base model, tokenizer, adapter or merged model is wrong."""

    exit_code = 4


class MachineError(LoraKitError):
    """The machine can't: disk, permission, memory, network."""

    exit_code = 5


class DivergedError(LoraKitError):
    """Training produced a loss or gradient that is not finite."""

    exit_code = 6


class IncompleteError(LoraKitError):
    """An evaluation ended without all its verdicts."""

    exit_code = 7


class RunLockedError(LoraKitError):
    """Another process works in the same run directory."""

    exit_code = 10


class InterruptedRunError(LoraKitError):
    """Training was stopped by a signal, after a checkpoint was committed."""

    def __init__(self, found: str, *, signal_number: int, cure: str = "") -> None:
        super().__init__(found, cure=cure)
        self.exit_code = 128 + signal_number
