"""How many tokens were computed at once: what was measured for it, and what did not fit."""

from collections.abc import Mapping
from typing import Any

from lora_kit.report.wording import finite, number, size


def budget_rows(budget: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Labels and texts from token_budget.json; none where there is no such file."""
    limit = finite(budget.get("limit_bytes"))
    return [
        ("Tokens at once", number(budget.get("tokens")) if budget else None),
        ("Measured beforehand", _measured(budget)),
        (
            "Heaviest step",
            None if limit is None else f"{size(budget.get('heaviest_bytes'))} of {size(limit)} allowed",
        ),
        *(("Out of memory", _fall(change)) for change in _objects(budget.get("changes"))),
    ]


def _measured(budget: Mapping[str, Any]) -> str | None:
    """Each budget that was tried, and why no larger one was."""
    tried = [
        f"{number(one.get('tokens'))} at {number(one.get('tokens_per_second'))} tokens/s in "
        f"{size(one.get('peak_memory_bytes'))}"
        for one in _objects(budget.get("measured"))
    ]
    return "; ".join([*tried, str(budget.get("ended"))]) if "ended" in budget else None


def _fall(change: Mapping[str, Any]) -> str:
    before, after = number(change.get("before")), number(change.get("tokens"))
    return (
        f"step {number(change.get('step'))}, {change.get('part')}: {before} tokens at once did not fit; "
        f"repeated with {after}, which was kept from there on"
    )


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
