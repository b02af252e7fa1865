"""A case of a manifest of published evaluations, and what comes out of recomputing it."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXACT = 0.0
CLOSE = 1e-6


class MissingInputError(Exception):
    """A file that the case needs is not beside the manifest."""


@dataclass(frozen=True, slots=True)
class Check:
    """One number against what it should be.

    Args:
        name: What it is.
        expected: Number, text or None.
        got: What we compute.
        tolerance: Largest difference of two numbers; everything else must be equal.
    """

    name: str
    expected: Any
    got: Any
    tolerance: float = EXACT

    @property
    def holds(self) -> bool:
        """Whether it is what it should be."""
        numbers = isinstance(self.expected, int | float) and isinstance(self.got, int | float)
        return abs(self.expected - self.got) <= self.tolerance if numbers else self.expected == self.got


@dataclass(frozen=True)
class Case:
    """One entry of a manifest.

    Args:
        fields: As in the manifest.
        folder: Where the manifest is; its files are relative to it.
        others: All cases of the manifest by id.
        thorough: Compute everything; false leaves out what takes seconds and is covered by a part of it.
    """

    fields: Mapping[str, Any]
    folder: Path
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    thorough: bool = True

    @property
    def expected(self) -> Any:  # noqa: ANN401 - JSON
        """What a correct harness gets."""
        return self.fields["expected"]

    @property
    def published(self) -> Mapping[str, Any]:
        """What the paper or leaderboard says; empty if nothing."""
        return self.fields.get("published") or {}

    def tolerance(self, name: str, default: float = CLOSE) -> float:
        """A tolerance of the case."""
        return float(self.fields.get("tolerance", {}).get(name, default))

    def rows(self) -> list[dict[str, Any]]:
        """The case's own file of rows."""
        return self.read_rows(self.fields["file"])

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """Rows of a JSONL file beside the manifest, gzipped or not.

        Raises:
            MissingInputError: It is not there.
        """
        path = self.folder / name
        if not path.is_file():
            raise MissingInputError(f"no {name}")
        raw = path.read_bytes()
        text = gzip.decompress(raw) if path.suffix == ".gz" else raw
        return [json.loads(line) for line in text.decode("utf-8").splitlines() if line.strip()]

    def answers(self, system: str) -> dict[str, str]:
        """A system's answers to Vicuna's 80 questions, by id."""
        return {row["id"]: row["answer"] for row in self.read_rows(f"vicuna80/answers/{system}.jsonl")}

    def published_checks(
        self, name: str, published: float, expected: float, got: float, tolerance: float
    ) -> list[Check]:
        """Check against the publication, unless the manifest's own right value contradicts it."""
        return [Check(name, published, got, tolerance)] if abs(published - expected) <= tolerance else []


def compare(name: str, expected: Mapping[str, Any], got: Mapping[str, Any], tolerance: float) -> list[Check]:
    """Check every entry of a mapping; counts are exact, numbers with a fraction within the tolerance."""
    return [
        Check(f"{name}.{key}", value, got.get(key), tolerance if isinstance(value, float) else EXACT)
        for key, value in expected.items()
    ]
