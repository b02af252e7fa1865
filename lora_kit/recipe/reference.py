"""The reference of all keys, for people (Markdown) and for editors (JSON Schema), from the schema itself."""

from typing import Any

from lora_kit.recipe.keys import Key, all_keys, mix_keys, sections
from lora_kit.recipe.load import yaml_value
from lora_kit.recipe.schema import Recipe


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, for completion and checks in an editor."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Recipe.model_json_schema()


def reference_markdown() -> str:
    """Return one table per section: key, type, default, meaning."""
    parts = ["| Key | Type | Default | Meaning |", "|---|---|---|---|"]
    parts += [_row(key) for key in all_keys().values() if "." not in key.name]
    for name, spec in sections().items():
        parts += ["", f"### {name}", "", (spec.__doc__ or "").strip(), ""]
        parts += ["| Key | Type | Default | Meaning |", "|---|---|---|---|"]
        parts += [_row(key) for key in all_keys().values() if key.name.startswith(f"{name}.")]
        if name == "data":
            parts += [_row(key) for key in mix_keys().values()]
    return "\n".join(parts) + "\n"


def _row(key: Key) -> str:
    default = list(key.default) if isinstance(key.default, tuple) else key.default
    written = "required" if key.required else f"`{yaml_value(default)}`"
    cells = (f"`{key.name}`", key.expected, written, key.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
