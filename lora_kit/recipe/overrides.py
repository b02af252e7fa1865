"""``section.key=value`` on the command line: the last word on a key.

The value is one plain scalar of YAML 1.2 (so that `data.system=You are: kind`
needs no second pair of quotes), a quoted text, a list in brackets, or
(for a key that takes one) a mapping in braces.
"""

from collections.abc import Sequence
from dataclasses import replace

from lora_kit.errors import RecipeError
from lora_kit.recipe.draft import COMMAND_LINE, Draft, clipped
from lora_kit.recipe.keys import all_keys, sections, unknown_key
from lora_kit.recipe.yaml_text import read_value


def apply_overrides(draft: Draft, overrides: Sequence[str]) -> None:
    """Put the overrides into the draft; the last one of a key wins. Problems are added to the draft."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            cure = "an override looks like train.steps=100"
            draft.report(clipped(key), "not KEY=VALUE", cure, where=COMMAND_LINE)
        elif key in sections():
            cure = f"give one of its keys: {key}.KEY=VALUE"
            draft.report(key, "is a whole section", cure, where=COMMAND_LINE)
        elif key not in all_keys():
            found, cure = unknown_key(clipped(key))
            draft.report(clipped(key), found, cure, where=COMMAND_LINE)
        else:
            _apply(draft, key, value)


def _apply(draft: Draft, key: str, text: str) -> None:
    scratch = Draft(COMMAND_LINE)
    try:
        value = read_value(text, scratch, key, braces="object" in all_keys()[key].kinds)
        draft.set(key, value, COMMAND_LINE)
        problems = tuple(scratch.problems.values())
    except RecipeError as error:
        problems = error.problems
    for problem in problems:
        draft.add(replace(problem, key=key))
