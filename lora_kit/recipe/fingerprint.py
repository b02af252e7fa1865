"""One number for a recipe: equal recipes, however written and on whatever machine, have equal ones."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lora_kit.recipe.load import portable
from lora_kit.recipe.schema import Recipe


def recipe_fingerprint(recipe: Recipe) -> str:
    """Return 64 hex digits over all keys."""
    return _digest(portable(recipe))


def training_fingerprint(recipe: Recipe) -> str:
    """Return 64 hex digits over what shapes the adapter: not name, ``evaluate``, audits and who is told."""
    plain = {key: value for key, value in portable(recipe).items() if key not in {"name", "evaluate"}}
    for key in ("trackers", "audit"):
        plain["engine"].pop(key)
    return _digest(plain)


def _digest(plain: Mapping[str, Any]) -> str:
    text = json.dumps(_canonical(plain), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(value: object) -> object:
    """Write 1.0 as 1, so that the type of a number never matters."""
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
