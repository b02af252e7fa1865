r"""How much of an evaluation suite a model has seen in training: by words, not by bytes.

Texts are compared as words (``\w+`` in lower case). An item of a suite is seen *exactly* if all its words
stand in a training row in this order; *probably* if a run of 13 of them does, or half of its runs of 8;
*possibly* if one run of 8 does (runs of 13: GPT-3, arXiv 2005.14165, appendix C). Prompts and reference
answers count apart; a prompt of less than 3 words or a reference of less than 8 is too common to count.

Only hashes of the suites are kept, so rows stream through in blocks, at a few microseconds each.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lora_kit.data.word_hashes import Hashes, Words, hash_runs, hash_whole, hash_words

RUN, LONG_RUN = 8, 13
SHORTEST = {"prompt": 3, "reference": RUN}
PROBABLE_SHARE = 0.5
LISTED_ROWS = 5
LEVELS = ("exact", "probable", "possible")


class SuiteText(NamedTuple):
    """One item of a suite.

    Args:
        suite: The suite's name.
        id: The item's.
        prompt: All that is asked.
        reference: The answer that a model is compared with.
    """

    suite: str
    id: str
    prompt: str
    reference: str


def fingerprint_of(items: Sequence[SuiteText]) -> tuple[dict[str, str], ...]:
    """Name what rows are compared with, as a source beside them; nothing for no items."""
    text = json.dumps(sorted(items)).encode()
    return ({"role": "suites", "sha256": hashlib.sha256(text).hexdigest()},) if items else ()


@dataclass(slots=True)
class _Target:
    """One text to look for, and what was found of it."""

    suite: str
    id: str
    part: str
    runs: int
    found: set[int] = field(default_factory=set)
    is_exact: bool = False
    is_long: bool = False
    rows: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of its different runs of 8 that were found."""
        return len(self.found) / self.runs if self.runs else float(self.is_exact)

    @property
    def level(self) -> str:
        """One of `LEVELS`, empty for nothing found."""
        if self.is_exact:
            return "exact"
        if self.is_long or self.share >= PROBABLE_SHARE:
            return "probable"
        return "possible" if self.found else ""

    def note(self, row: str) -> None:
        """Keep the first rows that it was found in."""
        if len(self.rows) < LISTED_ROWS and row not in self.rows:
            self.rows.append(row)


class SuiteOverlap:
    """Looks for the items of suites in training rows.

    Args:
        items: Of all suites.
    """

    def __init__(self, items: Sequence[SuiteText]) -> None:
        parts = [(item, part) for item in items for part in SHORTEST]
        words = hash_words([getattr(item, part) for item, part in parts])
        self.targets: list[_Target] = []
        self._runs: dict[int, dict[int, list[int]]] = {RUN: {}, LONG_RUN: {}}
        self._whole: dict[int, dict[int, list[int]]] = {}
        self._tables: dict[int, Hashes] = {}
        for n, (item, part) in enumerate(parts):
            own = words.hashes[words.bounds[n] : words.bounds[n + 1]]
            self._aim(_Target(item.suite, item.id, part, 0), own)
        for size in {*self._runs, *self._whole}:
            known = {*self._runs.get(size, ()), *self._whole.get(size, ())}
            self._tables[size] = np.array(sorted(known), np.uint64)

    def add(self, texts: Sequence[str], origins: Sequence[str]) -> None:
        """Look for the items in some training rows; best many at once.

        Args:
            texts: All that is said in each row.
            origins: ``file:row`` of each.
        """
        if not self.targets:
            return
        words = hash_words(texts)
        for size, table in self._tables.items():
            if len(table):
                self._look(hash_runs(words, size), size, table, origins)

    def to_json(self) -> dict[str, Any]:
        """Return, by suite, ``items``, counts per level of prompts and references, and what was found."""
        suites: dict[str, Any] = {}
        for target in self.targets:
            report = suites.setdefault(target.suite, {"items": 0, "found": []})
            report["items"] += target.part == "prompt"
            counts = report.setdefault(target.part, dict.fromkeys(LEVELS, 0))
            if target.level:
                counts[target.level] += 1
                shown = {"id": target.id, "part": target.part, "level": target.level}
                report["found"].append(shown | {"share": round(target.share, 3), "rows": target.rows})
        return suites

    def _aim(self, target: _Target, own: Hashes) -> None:
        number = len(self.targets)
        self.targets.append(target)
        alone = Words(own, np.array([0, len(own)], np.int64))
        for size, table in self._runs.items():
            different = set(hash_runs(alone, size).hashes.tolist())
            target.runs = len(different) if size == RUN else target.runs
            for code in different:
                table.setdefault(code, []).append(number)
        if len(own) >= SHORTEST[target.part]:
            self._whole.setdefault(len(own), {}).setdefault(hash_whole(own), []).append(number)

    def _look(self, runs: Words, size: int, table: Hashes, origins: Sequence[str]) -> None:
        at = np.minimum(np.searchsorted(table, runs.hashes), len(table) - 1)
        hits = np.flatnonzero(table[at] == runs.hashes)
        rows = np.searchsorted(runs.bounds, hits, side="right") - 1
        for code, row in zip(runs.hashes[hits].tolist(), rows.tolist(), strict=True):
            for number in self._runs.get(size, {}).get(code, ()):
                target = self.targets[number]
                target.is_long |= size == LONG_RUN
                if size == RUN:
                    target.found.add(code)
                target.note(origins[row])
            for number in self._whole.get(size, {}).get(code, ()):
                self.targets[number].is_exact = True
                self.targets[number].note(origins[row])
