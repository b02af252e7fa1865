"""A recipe file and overrides to one frozen ``Recipe``, and back to text.

text -> draft with places -> overrides -> paths -> schema and rules. Nothing is
filled in here: every default is in ``schema.py``. A data file that a recipe names
wrongly is a ``RecipeError`` at the line that names it; what is in the file is the
business of ``data``.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_kit.recipe.check import checked
from lora_kit.recipe.overrides import apply_overrides
from lora_kit.recipe.paths import SAMPLE, resolve_paths
from lora_kit.recipe.rules import apply_rules
from lora_kit.recipe.schema import Recipe
from lora_kit.recipe.shipped import find_recipe, shipped_dir
from lora_kit.recipe.yaml_text import plain_scalar, read_draft

_DATA_KEYS = ("data.train", "data.validation")
_PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9/._-]*( [A-Za-z0-9/._-]+)*")
_UNPRINTABLE = re.compile(
    "[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]"
)  # line breaks and refused characters of YAML


def load_recipe(
    path: Path | str, overrides: Sequence[str] = (), *, allow_outside: Sequence[Path | str] = ()
) -> Recipe:
    """Load and check a recipe; every path in it becomes absolute.

    Args:
        path: A file, or the name of a shipped recipe.
        overrides: ``section.key=value``; their paths start from the current directory and may be anywhere.
        allow_outside: Directories besides the recipe's own that paths in the file may lead into.

    Raises:
        RecipeError: Everything that is wrong, each with ``file:line`` or ``command line``.
    """
    file = find_recipe(path)
    draft = read_draft(file)
    apply_overrides(draft, overrides)
    resolve_paths(draft, file, allow_outside)
    return checked(draft, apply_rules)


def load_resolved(path: Path) -> Recipe:
    """Load the recipe.yaml of a run directory: its absolute paths are trusted, and may be gone by now.

    Raises:
        RecipeError: Not what ``dump_recipe`` writes.
    """
    draft = read_draft(path)
    for key in _DATA_KEYS:
        value = draft.get(key)
        if isinstance(value, str):
            draft.set(key, _unpacked(value))
    mix = draft.get("data.mix")
    if isinstance(mix, list) and all(isinstance(entry, dict) and "train" in entry for entry in mix):
        draft.set("data.mix", [{**entry, "train": _unpacked(str(entry["train"]))} for entry in mix])
    return checked(draft)


def dump_recipe(recipe: Recipe) -> str:
    """Write all keys as YAML, so that ``load_resolved`` gives an equal recipe on any machine."""
    lines = ["# Resolved recipe: every key with its value."]
    for name, value in portable(recipe).items():
        if isinstance(value, dict):
            lines += ["", f"{name}:", *(f"  {key}: {yaml_value(item)}" for key, item in value.items())]
        else:
            lines.append(f"{name}: {yaml_value(value)}")
    return "\n".join(lines) + "\n"


def portable(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain data, shipped samples by name: the same on every machine."""
    plain = recipe.model_dump(mode="json")
    for key in _DATA_KEYS:
        section, _, leaf = key.partition(".")
        plain[section][leaf] = _packed(plain[section][leaf])
    for entry in plain["data"]["mix"]:
        entry["train"] = _packed(entry["train"])
        for leaf in [leaf for leaf, value in entry.items() if value is None]:
            del entry[leaf]
    return plain


def _packed(path: str | None) -> str | None:
    """Name a shipped sample as such."""
    is_sample = path is not None and Path(path).parent == shipped_dir("data")
    return SAMPLE + Path(str(path)).name if is_sample else path


def _unpacked(path: str) -> str:
    return str(shipped_dir("data") / path.removeprefix(SAMPLE)) if path.startswith(SAMPLE) else path


def yaml_value(value: object) -> str:
    """Write a value in one line of YAML: plain where that reads back as the same text, else quoted."""
    if isinstance(value, list):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{yaml_value(key)}: {yaml_value(item)}" for key, item in value.items()) + "}"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and plain_scalar(value) == value:
        return value
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))
