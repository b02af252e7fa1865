"""Most tokens that are computed at once: what a run began with, and what failed allocations made of it.

The budget decides how a window is split into micro-batches, and the split decides how sums round and which
dropout draws a row gets. So it is a part of the run: it is on disk before the first step that uses it, and a
resumed run, or one that is audited, reads it there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

from lora_kit.artifacts.commit import write_json
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.errors import MachineError, ModelError
from lora_kit.recipe.schema import LARGEST
from lora_kit.train.observe import Observer
from lora_kit.train.out_of_memory import NoRoomError, release
from lora_kit.train.run_record import CURE, read_record

FORMAT = 1
PARTS = ("training", "validation")  # of a step, in their order
Part = Literal["training", "validation"]
T = TypeVar("T")


class RowTooLargeError(MachineError):
    """A row does not fit in memory, computed alone; the model holds the last good weights."""


class Change(NamedTuple):
    """A failed allocation, and what followed from it.

    Args:
        step: The step that was repeated.
        part: Whether its update or the validation after it.
        before: The budget that failed.
        tokens: The budget from here on.
    """

    step: int
    part: Part
    before: int
    tokens: int

    @property
    def place(self) -> tuple[int, int]:
        """Where in the run, to be compared."""
        return self.step, PARTS.index(self.part)


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """The budget of every step.

    Args:
        tokens: At the first step.
        changes: In the order of the run; each is lower than those before.
        origin: JSON for the report: what was measured, and why this was chosen; empty if nothing was.
    """

    tokens: int
    changes: tuple[Change, ...] = ()
    origin: Mapping[str, Any] | None = None

    def at(self, step: int, part: Part = "training") -> int:
        """Return the budget of a part of a step."""
        here = (step, PARTS.index(part))
        return min([self.tokens, *(change.tokens for change in self.changes if change.place <= here)])

    def lowered(self, step: int, part: Part, tokens: int) -> "TokenBudget":
        """Return the budget that is ``tokens`` from here on; falls in one place count as one."""
        here = (step, PARTS.index(part))
        earlier = tuple(change for change in self.changes if change.place < here)
        before = replace(self, changes=earlier).at(step, part)
        later = tuple(change for change in self.changes if change.place > here and change.tokens < tokens)
        return replace(self, changes=(*earlier, Change(step, part, before, tokens), *later))

    def fell_in(self, step: int) -> int:
        """Return what the budget fell to in a step; 0 if it did not."""
        return min((change.tokens for change in self.changes if change.step == step), default=0)

    def to_json(self) -> dict[str, Any]:
        """The budget as JSON."""
        changes = [change._asdict() for change in self.changes]
        return {"format_version": FORMAT, "tokens": self.tokens, **(self.origin or {}), "changes": changes}


def read_budget(run: RunDir) -> TokenBudget | None:
    """Read a run's budget; None if it has none of its own.

    Raises:
        ModelError: The file is damaged.
    """
    return read_record(run.token_budget, _parsed)


def _parsed(content: dict[str, Any]) -> TokenBudget | None:
    changes = tuple(Change(**change) for change in content.pop("changes"))
    budget = TokenBudget(content.pop("tokens"), changes, content)
    counts = [budget.tokens, *(number for c in changes for number in (c.step, c.before, c.tokens))]
    whole = content.pop("format_version") == FORMAT and all(type(count) is int for count in counts)
    whole = whole and all(1 <= count <= LARGEST for count in counts) and budget.changes == _sorted(changes)
    return budget if whole else None


def _sorted(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    return tuple(sorted(changes, key=lambda change: change.place))


class Healer:
    """Repeats what did not fit in memory with a lower budget.

    Args:
        run: Where the budget is kept.
        asked: What the recipe says.
        observer: Whom to tell.
        writes: Whether this process is the one that writes.
    """

    def __init__(
        self, run: RunDir, asked: int | Literal["auto"], observer: Observer, *, writes: bool
    ) -> None:
        self.run = run
        self.asked = asked
        self.observer = observer
        self.writes = writes
        self.budget = TokenBudget(1)

    def begin(self, step: int, tokens: int | None, settle: Callable[[], TokenBudget]) -> None:
        """Read the run's budget, or settle it before the first step and write it down.

        Args:
            step: Steps that are done.
            tokens: The budget after them, as the checkpoint says; None if it does not.
            settle: Gives the budget of a new run.

        Raises:
            ModelError: It is damaged, or not the one that the checkpoint was made with.
        """
        found = read_budget(self.run)
        if found is None and step == 0:
            found = settle()
            if found.origin is not None:
                self._write(found)
        elif found is None and self.asked != "auto":
            found = TokenBudget(self.asked)
        if found is None or (tokens is not None and found.at(step, "validation") != tokens):
            raise ModelError(
                "is not the one that the checkpoint was made with" if found else "is missing",
                where=str(self.run.token_budget),
                cure=CURE,
            )
        self.budget = found

    def attempt(self, step: int, part: Part, compute: Callable[[int], T]) -> T:
        """Call ``compute`` with the step's budget, and again with less as long as it finds no room.

        A row that was alone is tried once more, for memory may have been short for a moment. The new budget
        is on disk before it is used.

        Args:
            step: The step.
            part: Which part of it.
            compute: Takes the budget, changes nothing if it raises NoRoomError.

        Raises:
            RowTooLargeError: A row does not fit alone.
        """
        failed_alone: set[str] = set()
        while True:
            tokens = self.budget.at(step, part)
            try:
                return compute(tokens)
            except NoRoomError as error:
                batch = error.batch
            release()
            alone = batch.origins[0] if len(batch.origins) == 1 else ""
            if alone in failed_alone:
                raise RowTooLargeError(
                    f"row {alone} ({sum(batch.lengths)} tokens) does not fit in memory, not even alone",
                    where=f"step {step}",
                    key="train.micro_batch_tokens",
                    cure=f"free memory, then go on with: lora-kit train {self.run.path}; or start anew with "
                    "a lower data.max_tokens or engine.memory: low",
                )
            failed_alone |= {alone} - {""}
            self._lower(step, part, _less(tokens, 0 if alone else batch.input_ids.numel()))

    def _lower(self, step: int, part: Part, tokens: int) -> None:
        before = self.budget.at(step, part)
        self.budget = self.budget.lowered(step, part, tokens)
        self._write(self.budget)
        self.observer.noted(
            f"step {step}: out of memory in {part} with {before} tokens at once; repeated with {tokens}, "
            "which is kept from here on"
        )

    def _write(self, budget: TokenBudget) -> None:
        if self.writes:
            write_json(self.run.token_budget, budget.to_json())


def _less(tokens: int, computed: int) -> int:
    """Halve the budget until what failed can't come together again; 0 stands for a row that was alone."""
    tokens = max(1, tokens // 2)
    while 1 < computed <= tokens:
        tokens //= 2
    return tokens
