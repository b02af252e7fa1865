"""The YAML file of a suite: which prompts, which references, which metrics.

Read by the recipe's own YAML reader (lines of every key, no tags, no aliases), so a
suite file follows the same rules as a recipe.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.catalogue import METRICS
from lora_kit.errors import DataError, RecipeError
from lora_kit.recipe.draft import Draft, shown
from lora_kit.recipe.yaml_text import read_draft
from lora_kit.registry import did_you_mean

KEYS = ("name", "description", "prompts", "references", "metrics")


@dataclass(frozen=True, slots=True)
class SuiteHeader:
    """What a suite file says.

    Args:
        name: Equals the file's name without ``.yaml``.
        description: One line.
        prompts: File of prompts.
        references: File of reference answers.
        metrics: Names in the catalogue's METRICS.
    """

    name: str
    description: str
    prompts: Path
    references: Path
    metrics: tuple[str, ...]


def read_header(path: Path) -> SuiteHeader:
    """Read a suite file; paths in it are relative to it.

    Raises:
        DataError: It is not YAML, a key is unknown or missing, or a value is wrong (all problems at once).
    """
    try:
        draft = read_draft(path)
        header = _header(draft, path)
        draft.raise_problems()
    except RecipeError as error:
        raise DataError.collect(error.problems) from error
    return header


def _header(draft: Draft, path: Path) -> SuiteHeader:
    for key in draft.values:
        if key not in KEYS:
            draft.report(key, "unknown key", did_you_mean(key, list(KEYS)) or f"known: {', '.join(KEYS)}")
    name = _text(draft, "name")
    if name and name != path.stem:
        draft.report(
            "name", f"is {shown(name)}, but the file is called {path.name}", "give both the same name"
        )
    prompts, references = _file(draft, "prompts", path), _file(draft, "references", path)
    return SuiteHeader(name, _text(draft, "description"), prompts, references, _metrics(draft))


def _text(draft: Draft, key: str) -> str:
    value = draft.values.get(key)
    if isinstance(value, str) and value.strip():
        return value
    draft.report(key, "is missing" if value is None else f"must be text, got {shown(value)}")
    return ""


def _file(draft: Draft, key: str, suite: Path) -> Path:
    path = suite.parent / _text(draft, key)
    if not path.exists():
        draft.report(key, f"no such file: {path}", "paths are relative to the suite file")
    return path


def _metrics(draft: Draft) -> tuple[str, ...]:
    value: Any = draft.values.get("metrics")
    known = list(METRICS)
    if not isinstance(value, list) or not value:
        draft.report("metrics", f"must be a list such as [{', '.join(known)}]")
        return ()
    for name in value:
        if name not in known:
            hint = did_you_mean(str(name), known) or f"known: {', '.join(known)}"
            draft.report("metrics", f"no metric {shown(name)}", hint)
        elif METRICS[name].missing:
            draft.report("metrics", f"{name} is not installed", METRICS[name].missing)
    if len({str(name) for name in value}) < len(value):
        draft.report("metrics", "the same metric twice")
    return tuple(str(name) for name in value)
