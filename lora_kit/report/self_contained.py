"""One HTML file that holds everything in itself and can reach nothing.

Style and script are ours and go in as they are; the content security policy allows
these two by their hash, and no address at all. Every other value is escaped.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent / "page"
_HARMLESS = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"})


def render_page(name: str, *, styles: Sequence[str] = (), script: str = "", **values: object) -> str:
    """Render ``page/NAME.html.j2`` with ``NAME.css`` and ``NAME.js``.

    Args:
        name: Of the three files.
        styles: Other style sheets instead of its own.
        script: Another script instead of its own.
        values: What the template shows, besides ``policy``, ``style`` and ``script``.
    """
    style = "".join((_FOLDER / f"{one}.css").read_text(encoding="utf-8") for one in styles or (name,))
    script = (_FOLDER / f"{script or name}.js").read_text(encoding="utf-8")
    sources = f"style-src {_source(style)}; script-src {_source(script)}"
    policy = f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"
    # Escaping our own files would break them and their hashes.
    ours = {"style": Markup(style), "script": Markup(script)}  # noqa: S704
    return _environment().get_template(f"{name}.html.j2").render(policy=policy, **ours, **values)


def embedded_json(value: object) -> Markup:
    r"""JSON for a ``<script>`` block, which nothing in it can end.

    Example:
        >>> print(embedded_json("</script>"))
        "\u003c/script\u003e"
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_HARMLESS))  # noqa: S704


def _source(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
