"""What a plan says, as plain values: the terminal shows them, ``--json`` writes them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

How = Literal["measured", "predicted"]


@dataclass(frozen=True, slots=True)
class Span:
    """A number and how far off it may be.

    Args:
        low: At least.
        likely: Most likely.
        high: At most, in about nine of ten runs.
    """

    low: float
    likely: float
    high: float


@dataclass(frozen=True, slots=True)
class Rows:
    """What is learned from.

    Args:
        train: Rows.
        validation: Rows that are held out.
        tokens: Of all of them.
        histogram: ``{up_to, examples}``, as in the data report.
        longest: Tokens of the longest.
        guessed: Whether tokens were guessed from bytes, for there is no tokenizer here.
    """

    train: int
    validation: int
    tokens: int
    histogram: list[dict[str, Any]]
    longest: int
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory against what there is.

    Args:
        need: Bytes.
        room: Bytes that it may take: free now and used by the plan itself, or the limit of the recipe, or the
            device's own memory.
        what: Whose memory.
    """

    need: Span
    room: int
    what: str

    @property
    def headroom(self) -> float:
        """Share of the room that stays free; negative if it does not fit."""
        return 1 - self.need.likely / self.room if self.room else 0.0


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes that a run leaves.

    Args:
        checkpoints: As many as there are at once.
        adapter: The result.
        merged: Base and adapter as one model, which `lora-kit run` makes.
        free: There now.
        place: Where.
    """

    checkpoints: int
    adapter: int
    merged: int
    free: int
    place: str

    @property
    def fits(self) -> bool:
        """Whether all of it does."""
        return self.checkpoints + self.adapter + self.merged <= self.free


@dataclass(frozen=True, slots=True)
class Change:
    """Another recipe, and what is predicted of it.

    Args:
        overrides: ``key=value``, as the command line takes them.
        seconds: Likely, of the whole run.
        memory_bytes: Likely.
        same_result: Whether the adapter stays what it would be, beyond rounding.
        why: What it does, in words.
    """

    overrides: tuple[str, ...]
    seconds: float
    memory_bytes: float
    same_result: bool
    why: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """A plan.

    Args:
        recipe: Its name.
        fingerprint: Of its training.
        how: Whether steps were timed here.
        where: This machine, or the device that was asked for.
        steps: Optimizer steps.
        rows: What is learned from.
        seconds: From the command to its end.
        parts: Seconds of each part of the run.
        memory: At its peak.
        disk: That it takes.
        gguf: Why the base can't become GGUF; empty if it can.
        timed: ``{what, tokens, seconds, peak_bytes}`` of each timing.
        energy: ``{watts, kwh, cost, currency}``, or None.
        correction: ``runs``: how many earlier ones moved the numbers; by what factor, for each quantity.
        uncorrected: ``{seconds, memory_bytes}`` without them.
        changes: What else could be done, the best first.
        change: The one that helps most; None if nothing helps.
        notes: What else one should know.
        sources: Of a device's numbers.
    """

    recipe: str
    fingerprint: str
    how: How
    where: str
    steps: int
    rows: Rows
    seconds: Span
    parts: Mapping[str, float]
    memory: Memory
    disk: Disk
    gguf: str
    timed: list[dict[str, Any]] = field(default_factory=list)
    energy: dict[str, Any] | None = None
    correction: Mapping[str, float] = field(default_factory=dict)
    uncorrected: Mapping[str, float] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    change: Change | None = None
    notes: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        plain = asdict(self)
        plain["memory"]["headroom"] = self.memory.headroom
        plain["disk"]["fits"] = self.disk.fits
        return plain
