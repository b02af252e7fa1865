"""The books of a data set: every row that was read was used or was dropped for a named reason.

``rows_read == rows_used + sum of dropped`` always holds. A row may hold several
conversations (a message tree); it counts as used if one of them is, and what
else it lost is listed under ``partly_dropped``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from lora_kit.data.row_file import Ints

LISTED_ROWS = 100
LONGEST_ROWS = 10
_EDGES = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(slots=True)
class Tally:
    """How often something happened, and the first rows it happened to."""

    count: int = 0
    rows: list[str] = field(default_factory=list)

    def add(self, origin: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.rows) < LISTED_ROWS:
            self.rows.append(origin)

    def to_json(self) -> dict[str, Any]:
        """Return ``{count, rows}``; `rows` are the first ones only."""
        return {"count": self.count, "rows": self.rows}


@dataclass(slots=True)
class Account:
    """What happened to each row so far."""

    rows_read: int = 0
    rows_used: int = 0
    conversations: int = 0
    dropped: dict[str, Tally] = field(default_factory=dict)
    partly_dropped: dict[str, Tally] = field(default_factory=dict)
    truncated: Tally = field(default_factory=Tally)
    duplicates: Tally = field(default_factory=Tally)
    empty_prompts: Tally = field(default_factory=Tally)
    nul_characters: Tally = field(default_factory=Tally)
    categories: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    bad_rows: list[str] = field(default_factory=list)

    def settle(self, origin: str, *, kept: int, lost: Sequence[str]) -> None:
        """Enter one row.

        Args:
            origin: The row.
            kept: Examples that came of it.
            lost: Reasons of its conversations that were dropped; for none at all, "no_conversation".
        """
        if kept:
            self.rows_used += 1
            for reason in lost:
                self.partly_dropped.setdefault(reason, Tally()).add(origin)
        else:
            self.dropped.setdefault(lost[0] if lost else "no_conversation", Tally()).add(origin)

    def note(self, problems: Iterable[str]) -> None:
        """Keep what was wrong with dropped rows, the first ones in words."""
        self.bad_rows += islice(problems, max(LISTED_ROWS - len(self.bad_rows), 0))

    def breakdown(self) -> str:
        """Say in one line what became of the rows."""
        reasons = [f"{reason} {tally.count:,}" for reason, tally in self.dropped.items()]
        dropped = sum(tally.count for tally in self.dropped.values())
        return f"{self.rows_read:,} read, {dropped:,} dropped" + (
            f" ({', '.join(reasons)})" if reasons else ""
        )


@dataclass(frozen=True, slots=True)
class DataReport:
    """What a run learned from, written to data_report.json.

    Args:
        account: Rows by what happened to them; rows of all files together.
        format: The data format's name.
        format_reason: Why it is this one.
        sources: ``{role, file, sha256}`` of each file.
        encoder_fingerprint: Tokenizer, template and system prompt.
        train_rows: Examples to train on (a row of a message tree may give several).
        validation_rows: Examples held out.
        lengths: Token counts, see `measure`.
    """

    account: Account
    format: str
    format_reason: str
    sources: tuple[Mapping[str, str], ...]
    encoder_fingerprint: str
    train_rows: int
    validation_rows: int
    lengths: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        books = self.account
        return {
            "format": self.format,
            "format_reason": self.format_reason,
            "sources": [dict(source) for source in self.sources],
            "encoder_fingerprint": self.encoder_fingerprint,
            "rows_read": books.rows_read,
            "rows_used": books.rows_used,
            "conversations": books.conversations,
            "train_rows": self.train_rows,
            "validation_rows": self.validation_rows,
            "dropped": {reason: tally.to_json() for reason, tally in books.dropped.items()},
            "partly_dropped": {reason: tally.to_json() for reason, tally in books.partly_dropped.items()},
            "truncated": books.truncated.to_json(),
            "duplicates": books.duplicates.to_json(),
            "empty_prompts": books.empty_prompts.to_json(),
            "nul_characters": books.nul_characters.to_json(),
            **self.lengths,
            "bad_rows": list(books.bad_rows),
            "counts": dict(books.counts),
            "categories": dict(sorted(books.categories.items())),
        }


def measure(lengths: Ints, trained_tokens: int, origin: Callable[[int], str]) -> dict[str, Any]:
    """Count tokens: in total, trained, of the longest examples, and as a histogram.

    Args:
        lengths: Tokens of each example.
        trained_tokens: How many tokens of theirs are targets.
        origin: Where the example of an index came from.

    Returns:
        ``tokens``, ``trained_tokens``, ``longest`` (``{row, tokens}``, longest first) and ``histogram``
        (``{up_to, examples}``; `up_to` is null for what is longer than all steps).
    """
    steps = np.bincount(np.searchsorted(_EDGES, lengths)).tolist()
    longest = np.argsort(-lengths, kind="stable")[:LONGEST_ROWS].tolist()
    return {
        "tokens": int(lengths.sum()),
        "trained_tokens": trained_tokens,
        "longest": [{"row": origin(at), "tokens": int(lengths[at])} for at in longest],
        "histogram": [
            {"up_to": up_to, "examples": count} for up_to, count in zip((*_EDGES, None), steps, strict=False)
        ],
    }
