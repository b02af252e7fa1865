"""What an evaluation's folder holds: results.json, and the judges' words from judgments.jsonl."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.artifacts.manifest import read_object

RESULTS, JOURNAL = "results.json", "judgments.jsonl"


@dataclass(frozen=True, slots=True)
class EvaluationFiles:
    """One folder.

    Args:
        results: Content of results.json.
        replies: Key to the text of each reply that the results name.
    """

    results: Mapping[str, Any]
    replies: Mapping[str, str]


def read_evaluation(folder: Path) -> EvaluationFiles:
    """Read a folder; a journal that is gone or damaged only takes the judges' words away.

    Raises:
        ModelError: results.json is missing or damaged.
    """
    results = read_object(folder / RESULTS)
    return EvaluationFiles(results, _replies(folder / JOURNAL, _wanted(results)))


def _wanted(results: Mapping[str, Any]) -> set[str]:
    sections = results.get("judgments")
    listed = [*(sections if isinstance(sections, list) else ()), results.get("ranking")]
    return {
        str(key)
        for section in listed
        if isinstance(section, dict)
        for verdict in section.get("verdicts") or ()
        if isinstance(verdict, dict)
        for key in verdict.get("keys") or ()
    }


def _replies(journal: Path, wanted: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if not wanted:
        return found
    try:
        lines = journal.read_bytes().splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            record = json.loads(line)
            if record["key"] in wanted:
                found[record["key"]] = str(record["reply"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a line that a killed process left unfinished
    return found
