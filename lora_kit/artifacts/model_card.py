"""The README.md beside an adapter: what it is, how it was made, how to use it.

Names, prompts and paths in it come from recipes and downloads, so each is untrusted:
one line, escaped for YAML in the front matter and for Markdown and HTML in the text.
"""

import html
import json
import re
from collections.abc import Mapping
from typing import Any

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~:@-])")
_UNSAFE_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")
_MOST_CHARACTERS = 300


def yaml_text(text: str) -> str:
    r"""Quote text for YAML: JSON's string form, which YAML reads, minus YAML's own line breaks.

    Example:
        >>> yaml_text("a\n---\nlicense: mit")
        '"a\\n---\\nlicense: mit"'
    """
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNSAFE_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def markdown_text(value: object) -> str:
    r"""One line of harmless Markdown that shows ``value`` as it is, cut to 300 characters.

    Example:
        >>> markdown_text("<b>|x|</b>\n# no")
        '&lt;b&gt;\\|x\\|&lt;/b&gt; \\# no'
    """
    line = " ".join(str(value).encode("utf-8", "replace").decode().split())
    cut = line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 3] + "..."
    visible = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut
    )
    return _MARKDOWN.sub(r"\\\1", html.escape(visible, quote=False))


def model_card(provenance: Mapping[str, Any], metrics: Mapping[str, Any] | None = None) -> str:
    """Write the card.

    Args:
        provenance: As ``save_adapter`` takes it; missing parts are left out.
        metrics: What to show in the table of results, name to number or text; None: no table.

    Returns:
        Markdown with a YAML front matter, as the Hugging Face Hub reads it.
    """
    sections = [_front_matter(provenance), "# A LoRA adapter made with lora_kit", *_warning(provenance)]
    sections += ["## How it was made", _table(_facts(provenance))]
    if metrics:
        sections += ["## Results", _table(metrics)]
    sections += ["## How to use it", _USE]
    return "\n\n".join(sections) + "\n"


_USE = """\
With lora_kit, which checks the base model and applies the template of the training:

```sh
lora-kit chat THIS_FOLDER
```

With PEFT: `PeftModel.from_pretrained(base_model, "THIS_FOLDER")`. `lora_kit.json` says which base
model, template and data it belongs to, by fingerprint, and the sha256 of every file."""


_FOUR_BITS = """\
**Only for its 4-bit base.** LoftQ began with what 4 bits lose of the weights: on the original weights that
would count twice."""


def _front_matter(provenance: Mapping[str, Any]) -> str:
    source = str(provenance.get("base", {}).get("source", ""))
    base = [f"base_model: {yaml_text(source)}"] if _HUB_ID.fullmatch(source) else []
    return "\n".join(["---", "library_name: peft", *base, "tags:", "- lora", "- lora_kit", "---"])


def _warning(provenance: Mapping[str, Any]) -> list[str]:
    if provenance.get("init") == "loftq":
        return [_FOUR_BITS, *_warning({**provenance, "init": None})]
    marks = provenance.get("inexact") or ()
    listed = "\n".join(f"- {markdown_text(mark)}" for mark in marks)
    text = "**Inexact resume.** The training was resumed under other conditions; repeating it may differ."
    return [f"{text}\n\n{listed}"] if marks else []


def _facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
    base = provenance.get("base", {})
    facts = {
        "Base model": base.get("source"),
        "Base revision": base.get("revision"),
        "Base fingerprint": base.get("fingerprint"),
        "Base precision": base.get("dtype"),
        "Quantization": (provenance.get("quantization") or {}).get("method"),
        "Made of": _made_of(provenance),
        "Template": (provenance.get("template") or {}).get("name"),
        "System prompt": provenance.get("system"),
        "Recipe fingerprint": provenance.get("recipe_fingerprint"),
        "Data fingerprint": provenance.get("data_fingerprint"),
        "Steps": provenance.get("step"),
        "Created": provenance.get("created"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _made_of(provenance: Mapping[str, Any]) -> str | None:
    """The adapters that a sum consists of."""
    parts = provenance.get("made_of") or ()
    return ", ".join(f"{part['weight']:g} x {part['name']}" for part in parts) or None


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {markdown_text(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else markdown_text(value)
