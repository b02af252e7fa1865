"""A recipe on its way: plain data, the place of every key, and what is wrong so far.

Each stage of loading (text, overrides, paths, schema, rules) changes the values
or adds problems; nothing raises before the last one, so that a user mends all
of them in one go.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_kit.errors import Problem, RecipeError

COMMAND_LINE = "command line"
MAX_SHOWN = 20


@dataclass
class Draft:
    """Plain data with places.

    Args:
        file: The recipe as the user named it.
        values: Nested mapping of what was given, defaults not yet filled in.
        places: Dotted key to ``file:line``, or to ``command line`` for an override.
        problems: Everything found so far; the first of a key at a place counts.
    """

    file: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    problems: dict[tuple[str, str], Problem] = field(default_factory=dict)

    def get(self, key: str) -> Any:  # noqa: ANN401 - values are checked by the schema later
        """Return the value of a dotted key, or None."""
        value: Any = self.values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def set(self, key: str, value: object, place: str = "") -> None:
        """Set a dotted key; a section that is not a mapping is left for the schema to refuse."""
        section, _, leaf = key.rpartition(".")
        target = self.values.setdefault(section, {}) if section else self.values
        if isinstance(target, dict):
            target[leaf] = value
            self.places[key] = place or self.place(key)

    def place(self, key: str) -> str:
        """Return where the key was given, or else its section, or else the file."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, self.file)

    def report(self, key: str, found: str, cure: str = "", *, where: str = "") -> None:
        """Add a problem of a key."""
        self.add(Problem(found, where=where or self.place(key), key=key, cure=cure))

    def add(self, problem: Problem) -> None:
        """Add a problem, unless its key has one at the same place already."""
        self.problems.setdefault((problem.key, problem.where), problem)

    def is_wrong(self, key: str) -> bool:
        """Say whether the key, or the section that it is in, has a problem."""
        return any(name in {key, key.rpartition(".")[0]} for name, _ in self.problems)

    def raise_problems(self) -> None:
        """Raise all problems in the order of the file, if there are any.

        Raises:
            RecipeError: With at most 20 problems and a count of the others.
        """
        if self.problems:
            raise collected(list(self.problems.values()))


def dotted(*parts: str) -> str:
    """Join the parts of a key; one that has a dot of its own (``train.steps: 3``) is put in quotes."""
    return ".".join(f"'{part}'" if "." in part else part for part in parts if part)


def collected(problems: Sequence[Problem]) -> RecipeError:
    """Build one RecipeError of the problems by line, at most 20 and a count of the others."""
    ordered = sorted(problems, key=_line)
    rest = len(ordered) - MAX_SHOWN
    more = [Problem(f"... and {rest} more")] if rest > 0 else []
    return RecipeError.collect([*ordered[:MAX_SHOWN], *more])


def _line(problem: Problem) -> int:
    match = re.search(r":(\d+)(:\d+)?$", problem.where)
    return int(match[1]) if match else 0


def shown(value: object) -> str:
    """Write a value as in YAML, at most 60 characters; only kinds for what is nested."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, str):
        return clipped(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return clipped("[" + ", ".join(shown(item) for item in value[:20]) + "]")
    return clipped(json.dumps(value).replace("Infinity", ".inf").replace("NaN", ".nan"))


def clipped(text: str, length: int = 60) -> str:
    """Shorten a text that a user gave, for use in a message."""
    return text if len(text) <= length else text[: length - 3] + "..."
