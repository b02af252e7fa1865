"""What of a suite an adapter has seen in training, and the scores without it.

The training rows are read again as the run's recipe says and compared word by word (`lora_kit.data.overlap`);
if they can't be, or are not what they were, that is said, and nothing is concluded.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_kit.data.account import Account
from lora_kit.data.checks import Problems
from lora_kit.data.gather import Gatherer
from lora_kit.data.overlap import LEVELS, SuiteText
from lora_kit.data.sources import changed_sources
from lora_kit.errors import LoraKitError
from lora_kit.harness.results import ItemResult
from lora_kit.harness.score import Scores
from lora_kit.harness.suite import Suite
from lora_kit.recipe.load import load_resolved
from lora_kit.recipe.schema import DataSpec

SUBSETS = (
    ("without exact and probable", ("exact", "probable")),
    ("without any overlap", LEVELS),
)
Overlap = Mapping[str, Any]
Score = Callable[[Sequence[ItemResult]], Scores]


def unknown_overlap(reason: str) -> dict[str, Any]:
    """What is said where training rows can't be looked at."""
    return {"status": "unknown", "reason": reason}


def adapter_overlap(adapter: Path, suite: Suite) -> dict[str, Any]:
    """Look for the items of a suite in the rows that an adapter was trained on.

    Args:
        adapter: Its folder; in a run it has the data report beside it.
        suite: Whose items are looked for.

    Returns:
        As `training_overlap`.
    """
    recipe = adapter / "recipe.yaml"
    if not recipe.is_file():
        return unknown_overlap("the adapter does not say what it was trained on")
    try:
        data = load_resolved(recipe).data
        report = adapter.parent / "data_report.json"
        before = json.loads(report.read_text("utf-8")) if report.is_file() else {}
    except (LoraKitError, OSError, ValueError) as error:
        return unknown_overlap(f"what the adapter was trained on can't be read: {str(error).splitlines()[0]}")
    return training_overlap(data, suite, before)


def training_overlap(data: DataSpec, suite: Suite, before: Mapping[str, Any]) -> dict[str, Any]:
    """Look for the items of a suite in the rows that a run was trained on.

    Args:
        data: The data section of the run's recipe.
        suite: Whose items are looked for.
        before: Data report that the run left; empty if there is none, and then rows are taken as they are.

    Returns:
        ``status`` known or unknown, ``reason``, ``sources``, ``counts`` by level and ``items``.
    """
    texts = [
        SuiteText(suite.name, item.id, item.prompt, reference)
        for item in suite.items
        for reference in item.references
    ]
    problems = Problems()
    try:
        gatherer = Gatherer(data, Account(), problems, texts)
        sources = [dict(source) for source in gatherer.sources()]
        if changed := [Path(file).name for file in changed_sources(before, sources)]:
            return unknown_overlap(f"the training rows have changed since the run: {', '.join(changed)}")
        gatherer.survey()
        problems.raise_if_any()
        report = gatherer.details()["suite_overlap"].get(suite.name, {})
    except LoraKitError as error:
        return unknown_overlap(f"the training rows can't be read: {error.problems[0]}")
    items = _items(suite, report.get("found", ()))
    counts = {level: sum(item["level"] == level for item in items) for level in LEVELS}
    counts["none"] = len(suite.items) - len(items)
    return {"status": "known", "reason": "", "sources": sources, "counts": counts, "items": items}


def _items(suite: Suite, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Findings by item, in the order of the suite; an item is leaked as much as its worst part."""
    by_id: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        places = by_id.setdefault(one["id"], [])
        place = {name: one[name] for name in ("part", "level", "share", "rows")}
        if place not in places:  # the prompt is looked for once with each reference
            places.append(place)
    return [
        {
            "id": item.id,
            "level": min((one["level"] for one in by_id[item.id]), key=LEVELS.index),
            "found": by_id[item.id],
        }
        for item in suite.items
        if item.id in by_id
    ]


def leakage_report(overlap: Overlap, items: Sequence[ItemResult], score: Score) -> dict[str, Any]:
    """Add to an overlap what the scores are without the items that were seen.

    Args:
        overlap: From ``training_overlap``.
        items: With the answers of all models.
        score: How some of the items are scored.

    Returns:
        The overlap with ``subsets``, none of which is empty or the same as the one before.
    """
    levels = {item["id"]: item["level"] for item in overlap.get("items", ())}
    subsets: list[dict[str, Any]] = []
    before = len(items)
    for title, without in SUBSETS:
        kept = [item for item in items if levels.get(item.id) not in without]
        if kept and len(kept) < before:
            subsets.append({"title": title, "without": list(without), **_scored(kept, score(kept))})
        before = len(kept)
    return {**overlap, "subsets": subsets}


def _scored(kept: Sequence[ItemResult], scores: Scores) -> dict[str, Any]:
    models = [
        {"name": name, "metrics": {metric: asdict(found) for metric, found in scores.estimates(name).items()}}
        for name in scores.models
    ]
    comparisons = [comparison.to_json() for comparison in scores.comparisons()]
    return {"items": len(kept), "models": models, "comparisons": comparisons}


def leakage_notes(overlap: Overlap) -> list[str]:
    """What a reader has to know of it, in a line."""
    if overlap["status"] == "unknown":
        return [f"whether the suite was seen in training is unknown: {overlap['reason']}"]
    counts = overlap["counts"]
    seen = [f"{counts[level]} {level}" for level in LEVELS if counts[level]]
    if not seen:
        return []
    found = f"seen in training: {', '.join(seen)} of {sum(counts.values())} items"
    return [f"{found}; read the scores without them"]
