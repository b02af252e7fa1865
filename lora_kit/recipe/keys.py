"""The schema as a flat table of dotted keys, and the words for it.

One table feeds the error messages, the overrides, the cross-field rules and the
README's reference, so that they all say the same of a key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from lora_kit.recipe.draft import dotted
from lora_kit.recipe.schema import LARGEST, MixSpec, Recipe, Spec
from lora_kit.registry import did_you_mean

_SECRET = re.compile(r"api_?key|secret|passw|credential|^((hf|hub|auth|access|api)_?)?token$", re.IGNORECASE)
_ALONE = "a recipe stands alone: copy the keys in"
_ELSEWHERE = {
    "include": _ALONE,
    "includes": _ALONE,
    "extends": _ALONE,
    "import": _ALONE,
    "imports": _ALONE,
    "defaults": _ALONE,
    "output_dir": "the run directory is given on the command line: --run-dir DIR",
    "run_dir": "the run directory is given on the command line: --run-dir DIR",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the recipe.

    Args:
        name: Dotted: ``train.steps``.
        expected: What it takes, in words: ``an integer >= 1``.
        kinds: JSON types that it takes: ``integer``, ``null`` ...
        choices: The words that it takes; empty if it is free.
        examples: Texts that have the shape that it takes; empty if any text will do.
        default: Its default; None where there is none.
        required: Whether it must be given.
        meaning: Its description.
    """

    name: str
    expected: str
    kinds: frozenset[str]
    choices: tuple[str, ...]
    examples: tuple[str, ...]
    default: Any
    required: bool
    meaning: str


def sections() -> dict[str, type[Spec]]:
    """Return the sections of a recipe by name, in the order of the schema."""
    annotations = {name: field.annotation for name, field in Recipe.model_fields.items()}
    return {
        name: kind for name, kind in annotations.items() if isinstance(kind, type) and issubclass(kind, Spec)
    }


@cache
def all_keys() -> dict[str, Key]:
    """Return every key by its dotted name, in the order of the schema."""
    table = {}
    owners: dict[str, type[Spec]] = {"": Recipe} | sections()
    for section, spec in owners.items():
        for leaf, key in _keys(spec, section).items():
            if section or leaf not in owners:
                table[key.name] = key
    return table


@cache
def mix_keys() -> dict[str, Key]:
    """Return the keys of one entry of ``data.mix`` by their own names."""
    return _keys(MixSpec, "data.mix[]")


def _keys(spec: type[Spec], section: str) -> dict[str, Key]:
    table = {}
    properties = spec.model_json_schema()["properties"]
    for leaf, model_field in spec.model_fields.items():
        options = _options(properties[leaf])
        required = model_field.is_required()
        table[leaf] = Key(
            name=f"{section}.{leaf}" if section else leaf,
            expected=" or ".join(_words(option) for option in options),
            kinds=frozenset(str(option.get("type", "object")) for option in options),
            choices=tuple(choice for option in options for choice in _choices(option)),
            examples=tuple(example for option in options for example in option.get("examples", ())),
            default=None if required else model_field.default,
            required=required,
            meaning=model_field.description or "",
        )
    return table


def _options(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(schema.get("anyOf", [schema]))


def _choices(schema: Mapping[str, Any]) -> list[str]:
    return [schema["const"]] if "const" in schema else schema.get("enum", [])


def _shape(examples: list[str]) -> str:
    if examples:
        return f"text such as {' or '.join(examples)}"
    return "a name of at most 64 letters, digits, '.', '_' and '-'"  # the only pattern without


def _words(schema: Mapping[str, Any]) -> str:
    """Say what a JSON Schema of one type takes."""
    if choices := _choices(schema):
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    if "$ref" in schema:
        return "mappings" if schema["$ref"].endswith("/MixSpec") else "a section of keys"
    if "pattern" in schema:
        return _shape(schema.get("examples", []))
    if schema["type"] == "object":
        return "a mapping of names"
    if schema["type"] == "array":
        return f"a list of {' or '.join(map(_words, _options(schema['items'])))}"
    words = {"integer": "an integer", "number": "a number", "boolean": "true or false", "string": "text"}
    marks = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    # LARGEST only keeps absurd numbers away from the libraries below: no need to read it beside every key
    limits = [
        f"{mark} {schema[name]:g}" for name, mark in marks.items() if schema.get(name, LARGEST) != LARGEST
    ]
    return f"{words.get(schema['type'], schema['type'])} {' and '.join(limits)}".strip()


def unknown_key(name: str) -> tuple[str, str]:
    """Say what is wrong with a dotted name that is no key, and the cure; its value is never shown."""
    section, _, leaf = name.strip("'").rpartition(".")
    found = f"unknown key '{leaf}'" + (f" in {section}" if section else "")
    if _SECRET.search(leaf):
        return found, "recipes are stored with every run: keep secrets in environment variables, never here"
    if leaf in _ELSEWHERE:
        return found, _ELSEWHERE[leaf]
    if "'" in name:  # one line of YAML with a dot in its key
        return f"unknown key {name}", f"write '{leaf}' inside the section '{section}'"
    if section and section not in sections():
        return f"unknown section '{section}'", did_you_mean(name, list(all_keys())) or _known_sections()
    return found, _suggestion(section, leaf)


def _suggestion(section: str, leaf: str) -> str:
    split = [key.rpartition(".") for key in all_keys()]
    for owner, _, own_leaf in split:
        if own_leaf == leaf:
            return f"did you mean '{dotted(owner, leaf)}'?"
    siblings = [own_leaf for owner, _, own_leaf in split if owner == section]
    if not section:
        siblings += sections()
    known = f"known: {', '.join(siblings)}" if section else _known_sections()
    return did_you_mean(leaf, siblings) or known


def _known_sections() -> str:
    return f"known sections: {', '.join(sections())}"
