"""What was looked at before the first step and in the finished adapter, from ``audit.json``."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from markupsafe import Markup

from lora_kit.report.plots import layer_bars
from lora_kit.report.wording import duration, finite, mapping, number, plain

PARTS = {"start": "before the first step", "end": "the adapter"}
CSS = {"passed": "good", "failed": "bad", "warning": "unclear"}
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class AuditView:
    """The audit section of a report; empty where there was none.

    Args:
        checks: When, what, result, its class, what was found and what to do.
        alarms: What failed, one line each, for the top of the page.
        seconds: What it took, in words.
        layers: Layer, norm, largest singular value, mean effective rank.
        norms: The norms as a picture.
    """

    checks: tuple[tuple[str, ...], ...]
    alarms: tuple[str, ...]
    seconds: str
    layers: tuple[tuple[str, ...], ...]
    norms: Markup


def audit_view(content: Mapping[str, Any]) -> AuditView:
    """Lay out an audit; what is not what an audit writes is left out."""
    parts = {name: mapping(content.get(name)) for name in PARTS}
    checks = [check for name, part in parts.items() for check in _checks(PARTS[name], part)]
    seconds = [
        f"{PARTS[name]}: {duration(part['seconds'])}" for name, part in parts.items() if "seconds" in part
    ]
    layers = _layers(parts["end"])
    bars = [(name, norm) for name, norm, _, _ in layers]
    return AuditView(
        checks=tuple(checks),
        alarms=tuple(
            f"Audit, {when}: {name}: {found}" for when, name, level, _, found in checks if level == "failed"
        ),
        seconds="; ".join(seconds),
        layers=tuple(
            (name, number(norm), number(largest), number(rank, 1)) for name, norm, largest, rank in layers
        ),
        norms=layer_bars(bars, "norm of what the adapter adds (scaled BA), by decoder layer"),
    )


def _checks(when: str, part: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    findings = part.get("findings")
    for finding in map(mapping, findings if isinstance(findings, list) else []):
        level = plain(finding.get("level"))
        texts = [plain(finding[name]) for name in ("found", "cure") if finding.get(name)]
        yield when, plain(finding.get("name")), level, CSS.get(level, "neutral"), "; ".join(texts)


def _layers(part: Mapping[str, Any]) -> list[tuple[str, float, float, float]]:
    """(decoder layer, norm of all its matrices together, largest singular value, mean effective rank)."""
    found = part.get("layers")
    by_layer: dict[str, list[tuple[float, ...]]] = {}
    for layer in map(mapping, found if isinstance(found, list) else []):
        numbers = [finite(layer.get(name)) for name in ("norm", "largest", "effective_rank")]
        known = tuple(value for value in numbers if value is not None)
        place = _LAYER.search(plain(layer.get("module")))
        if len(known) == len(numbers):
            by_layer.setdefault(place[1] if place else plain(layer.get("module")), []).append(known)
    return [
        (
            name,
            sqrt(sum(one[0] ** 2 for one in matrices)),
            max(one[1] for one in matrices),
            sum(one[2] for one in matrices) / len(matrices),
        )
        for name, matrices in sorted(by_layer.items(), key=lambda one: (len(one[0]), one[0]))  # 2 before 10
    ]
