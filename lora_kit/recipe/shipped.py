"""What comes with lora_kit: ready recipes with their cards, sample rows, suites.

In a checkout these are the top-level folders that a user reads and edits; a
wheel carries copies in ``lora_kit/_shipped``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_kit.errors import RecipeError
from lora_kit.recipe.draft import clipped
from lora_kit.registry import did_you_mean

_PACKAGE = Path(__file__).resolve().parent.parent
CARD_LABELS = ("for", "hardware", "peak memory", "minutes", "final loss", "date", "numbers")


@dataclass(frozen=True, slots=True)
class RecipeCard:
    """The comment that a shipped recipe opens with.

    Args:
        name: What `lora-kit run NAME` takes: ``quickstart``, ``pythia/410m-dolly-qlora``.
        path: The file.
        fields: Value by label, of the labels in ``CARD_LABELS`` that the comment has.
    """

    name: str
    path: Path
    fields: dict[str, str]


def shipped_dir(kind: Literal["recipes", "data", "eval"]) -> Path:
    """Return the folder of shipped recipes, sample rows or suites."""
    inside = _PACKAGE / "_shipped" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def recipe_names() -> dict[str, Path]:
    """Return the file of every shipped recipe by its name, sorted."""
    folder = shipped_dir("recipes")
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))
    }


def find_recipe(name_or_path: str | Path) -> Path:
    """Find a recipe file: a path, or the name of a shipped recipe.

    Raises:
        RecipeError: Neither a file nor a shipped recipe.
    """
    text, names = str(name_or_path), recipe_names()
    path = Path(text)
    if text in names and not path.is_file():
        return names[text]
    try:
        is_there = "\0" not in text and path.exists()
        siblings = [str(sibling) for sibling in path.parent.glob("*.yaml")] if "\0" not in text else []
    except OSError as error:
        raise RecipeError(f"can't be looked up: {error.strerror}", where=clipped(text)) from error
    if is_there and not path.is_dir():
        return path
    hint = did_you_mean(text, [*siblings, *names]) or did_you_mean(path.stem, list(names))
    found = "is a directory, not a recipe" if is_there else "no such recipe"
    raise RecipeError(found, where=clipped(text), cure=f"{hint} shipped: {', '.join(names)}".strip())


def list_recipes() -> list[RecipeCard]:
    """Return the cards of all shipped recipes, by name."""
    return [
        RecipeCard(name, path, card_fields(path.read_text("utf-8"))) for name, path in recipe_names().items()
    ]


def card_fields(text: str) -> dict[str, str]:
    r"""Read the card: the ``# Label: value`` lines at the top; deeper lines go on with the value.

    Example:
        >>> card_fields("# For: a first run,\n#   start to end.\n# Minutes: 8\nname: x")
        {'for': 'a first run, start to end.', 'minutes': '8'}
    """
    fields: dict[str, str] = {}
    label = ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head, colon, value = line.removeprefix("#").partition(":")
        if colon and head.strip().lower() in CARD_LABELS:
            label = head.strip().lower()
            fields[label] = value.strip()
        elif label and line.startswith("#   "):
            fields[label] += " " + line.removeprefix("#").strip()
        else:
            label = ""
    return fields
