"""Schema and rules against a draft: every problem in the words of ``keys.py``, not in pydantic's."""

from collections.abc import Callable

from pydantic import ValidationError

from lora_kit.recipe.draft import Draft, clipped, dotted, shown
from lora_kit.recipe.keys import Key, all_keys, mix_keys, sections, unknown_key
from lora_kit.recipe.schema import LARGEST, Recipe
from lora_kit.recipe.yaml_text import plain_scalar
from lora_kit.registry import did_you_mean


def checked(draft: Draft, rules: Callable[[Draft], None] | None = None) -> Recipe:
    """Turn the draft into a recipe.

    Args:
        draft: Values with absolute paths.
        rules: Adds the problems of keys that don't go together.

    Raises:
        RecipeError: All problems of the draft, found here or before.
    """
    recipe = against_schema(draft)
    if rules:
        rules(draft)
    draft.raise_problems()
    assert recipe is not None  # a refused draft has a problem
    return recipe


def against_schema(draft: Draft) -> Recipe | None:
    """Validate the values; problems are added to the draft."""
    try:
        return Recipe.model_validate(draft.values)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            place = [str(part) for part in item["loc"]]
            if place[:2] == ["data", "mix"] and len(place) > 3:
                _explain_entry(draft, item["type"], int(place[2]), place[3])
            else:
                _explain(draft, item["type"], dotted(*place[:2]))
    return None


def _explain_entry(draft: Draft, kind: str, at: int, leaf: str) -> None:
    """Say what is wrong with one key of one entry of ``data.mix``."""
    keys, where = mix_keys(), draft.place("data.mix")
    name = f"data.mix[{at}].{clipped(leaf)}"
    if kind == "extra_forbidden":
        cure = did_you_mean(leaf, list(keys)) or f"known: {', '.join(keys)}"
        draft.report(name, f"unknown key '{clipped(leaf)}'", cure, where=where)
    elif kind == "missing":
        draft.report(name, "is missing", f"add it: {keys[leaf].meaning.rstrip('.')}", where=where)
    else:
        value = draft.get("data.mix")[at].get(leaf)
        found = f"must be {keys[leaf].expected}, got {shown(value)}"
        draft.report(name, found, _cure(keys[leaf], value), where=where)


def _explain(draft: Draft, kind: str, name: str) -> None:
    keys = all_keys()
    if kind == "extra_forbidden":
        found, cure = unknown_key(clipped(name))
        draft.report(clipped(name), found, cure, where=draft.place(name))
    elif kind == "missing":
        for key in keys.values():
            if key.required and (key.name == name or key.name.startswith(f"{name}.")):
                wanted = key.expected if key.choices else key.meaning.rstrip(".")
                draft.report(key.name, "is missing", f"add it: {wanted}")
    elif name in sections():
        found = f"is a section of keys, got {shown(draft.get(name))}"
        draft.report(name, found, f"its keys: {', '.join(sections()[name].model_fields)}")
    else:
        value = draft.get(name)
        draft.report(name, f"must be {keys[name].expected}, got {shown(value)}", _cure(keys[name], value))


def _cure(key: Key, value: object) -> str:
    if key.examples:
        return f"write it like {key.examples[0]}"
    if not isinstance(value, str):
        return _number_cure(key, value)
    if near := did_you_mean(value, list(key.choices)):
        return near
    if "boolean" in key.kinds:
        return "write true or false"
    if "array" in key.kinds:
        return "write a list in brackets: [a, b]"
    bare = plain_scalar(value.replace("_", "").replace(",", "").strip())
    return f"write {bare}" if isinstance(bare, int | float) and not isinstance(bare, bool) else ""


def _number_cure(key: Key, value: object) -> str:
    if "string" in key.kinds and not key.choices and not isinstance(value, list | dict):
        return "put text in quotes"
    if isinstance(value, int) and value > LARGEST:
        return f"the largest is {LARGEST}"
    return ""
