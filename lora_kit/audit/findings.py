"""What an audit found, in ``RUN/audit.json``: one finding for each thing that was looked at.

A finding that *failed* is wrong whatever one does next, and ends the command with an error; a *warning* may
be what the user wants, or mend itself (a model that was trained for four steps need not stop by itself yet).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from lora_kit.artifacts.commit import write_json
from lora_kit.artifacts.manifest import read_object
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.errors import LoraKitError, ModelError, Problem
from lora_kit.train.observe import Observer

FORMAT = 1
Level: TypeAlias = Literal["passed", "warning", "failed", "skipped"]
Part: TypeAlias = Literal["start", "end"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check.

    Args:
        name: What was looked at.
        found: What holds, or what is wrong, in one line.
        level: How bad it is.
        key: The recipe's key that it is about, if any.
        cure: What the user does about it.
        error: What it is raised as if it failed.
    """

    name: str
    found: str
    level: Level = "passed"
    key: str = ""
    cure: str = ""
    error: type[LoraKitError] = field(default=ModelError, compare=False)

    @property
    def problem(self) -> Problem:
        """The finding as a line of an error."""
        return Problem(self.found, f"audit: {self.name}", self.key, self.cure)

    def to_json(self) -> dict[str, str]:
        """The finding as JSON values."""
        texts = {"name": self.name, "level": self.level, "found": self.found}
        return texts | {name: text for name, text in (("key", self.key), ("cure", self.cure)) if text}


@dataclass(frozen=True, slots=True)
class Audit:
    """One part of an audit.

    Args:
        findings: In order.
        seconds: What it took.
        facts: JSON values beside the findings.
    """

    findings: tuple[Finding, ...]
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def of(self, level: Level) -> list[Finding]:
        """The findings of a level."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def sentence(self) -> str:
        """How it went, in one line."""
        levels: Counter[str] = Counter(finding.level for finding in self.findings)
        words = {"passed": "passed", "failed": "failed", "skipped": "skipped", "warning": "with a warning"}
        parts = [f"{levels[level]} {word}" for level, word in words.items() if levels[level]]
        how = " passed" if levels["passed"] == len(self.findings) else f": {', '.join(parts)}"
        return f"audit: {len(self.findings)} checks{how} in {self.seconds:.1f} s"

    def tell(self, observer: Observer) -> None:
        """Say how it went, and what should be read now; what failed is raised, not told."""
        observer.phase(self.sentence)
        for finding in self.of("warning"):
            observer.noted(f"warning: {finding.problem}")

    def raise_if_failed(self) -> None:
        """Raise what failed.

        Raises:
            LoraKitError: Of the kind of the first finding that failed; names all of them.
        """
        failed = self.of("failed")
        if failed:
            raise failed[0].error.collect([finding.problem for finding in failed])

    def to_json(self) -> dict[str, Any]:
        """The audit as JSON values."""
        seconds = round(self.seconds, 3)
        return {"seconds": seconds, "findings": [one.to_json() for one in self.findings], **self.facts}


def write_audit(run: RunDir, part: Part, audit: Audit, **facts: Any) -> None:  # noqa: ANN401 - JSON values
    """Put one part into the run's file; a new start takes what was found in an earlier adapter away.

    Raises:
        MachineError: The disk can't take it.
    """
    kept = read_parts(run) if part == "end" else {}
    parts = {name: kept[name] for name in ("start",) if name in kept}
    write_json(run.audit, {"format_version": FORMAT, **parts, part: {**facts, **audit.to_json()}})


def read_parts(run: RunDir) -> dict[str, Any]:
    """Read the run's file as it is; empty if it is not there or damaged, for an audit can be made again."""
    try:
        return read_object(run.audit) if run.audit.is_file() else {}
    except ModelError:
        return {}


def read_audit(content: object) -> Audit | None:
    """Read one part; None if it is not what :func:`write_audit` writes."""
    try:
        findings = tuple(Finding(**one) for one in content["findings"])  # type: ignore[index]
        texts = [text for one in findings for text in (one.name, one.found, one.level, one.key, one.cure)]
        whole = all(isinstance(text, str) for text in texts)
        return Audit(findings, float(content["seconds"])) if whole else None  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
