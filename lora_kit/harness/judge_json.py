"""Verdicts in JSON: the whole reply is one object, or one object in a code fence, and nothing else.

Taking off the fence is the only repair. Prose around an object, or a key that occurs
twice, makes it unreadable: who mends replies ends up writing them.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n```", re.DOTALL | re.IGNORECASE)
_WINNERS = {"a": "a", "b": "b", "tie": "tie", "1": "a", "2": "b", "3": "tie", "c": "tie"}


def json_pair(reply: str) -> list[tuple[float, float]]:
    """``{"score_a": 8, "score_b": 9}``.

    Example:
        >>> json_pair('{"score_a": 8, "score_b": 9.5}'), json_pair('Well: {"score_a": 8, "score_b": 9.5}')
        ([(8.0, 9.5)], [])
    """
    found = _object(reply)
    scores = _number(found.get("score_a")), _number(found.get("score_b"))
    return [(scores[0], scores[1])] if scores[0] is not None and scores[1] is not None else []


def json_winner(reply: str) -> list[str]:
    """``{"winner": "A"}``, ``"B"`` or ``"tie"``."""
    winner = str(_object(reply).get("winner", "")).strip().lower()
    return [_WINNERS[winner]] if winner in _WINNERS else []


def json_score(reply: str) -> list[float]:
    """``{"rating": 7}`` or ``{"score": 7}``."""
    found = _object(reply)
    scores = [_number(found[key]) for key in ("rating", "score") if key in found]
    return [score for score in scores if score is not None]


def _object(reply: str) -> Mapping[str, Any]:
    text = reply.strip()
    fenced = _FENCE.fullmatch(text)
    try:
        found = json.loads(fenced[1] if fenced else text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
