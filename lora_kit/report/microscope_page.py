"""The microscope as one HTML page over all rows: search, sort, and every token with its id.

A page of a thousand rows has to open at once, so rows travel as data and become
elements only when they are looked at. ``rows`` is one JSON list,
``[origin, held out, tokens, trained tokens, prompt cut, [[kind, tokens, text], ...]]`` each, with kind 1 for
trained plus 2 for control. ``tokens`` has a line for each row, parsed when it is opened:
``[ids, lengths]``, where a length counts the UTF-16 units that a token completes (0 inside of a glyph).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lora_kit.artifacts.commit import write_file
from lora_kit.errors import RecipeError
from lora_kit.report.microscope import Microscope, Specimen
from lora_kit.report.rows import data_facts, lost_rows
from lora_kit.report.self_contained import embedded_json, render_page

MOST_ROWS = 100_000


def write_microscope(
    path: Path, title: str, microscope: Microscope, *, start: int = 1, count: int | None = None
) -> int:
    """Write the page over the examples from ``start`` (counted from 1) on, all of them or ``count``.

    Returns:
        How many there are on it.

    Raises:
        RecipeError: There is none, or there are more than a browser holds.
        MachineError: The disk can't take it.
    """
    specimens = microscope.view(start, count)
    rows = min(len(microscope) - start + 1, count or len(microscope))
    if rows > MOST_ROWS:
        found = f"a page of {rows:,} rows is more than a browser holds"
        raise RecipeError(found, key="--html", cure=f"pass --rows {MOST_ROWS}, and --start for the others")
    page = microscope_page(title, page_facts(microscope.report), specimens)
    write_file(path, page.encode("utf-8", "replace"))
    return rows


def page_facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The head of the page: what was read, and what became of it."""
    return [
        *data_facts(report),
        *((label.capitalize(), f"{rows} rows") for label, rows, _ in lost_rows(report)),
    ]


def microscope_page(title: str, facts: Sequence[tuple[str, str]], specimens: Iterable[Specimen]) -> str:
    """Write the page.

    Args:
        title: The recipe's name.
        facts: Pairs of label and text for the head of the page.
        specimens: The rows, in the order of their files.
    """
    rows, tokens = [], []
    for specimen in specimens:
        rows.append(embedded_json(row_json(specimen)))
        tokens.append(json.dumps(tokens_json(specimen), separators=(",", ":")))
        if len(rows) > MOST_ROWS:
            found = f"a page of more than {MOST_ROWS:,} rows is more than a browser holds"
            raise RecipeError(
                found, key="--html", cure=f"pass --rows {MOST_ROWS}, and --start for the others"
            )
    # Escaped above, row by row.
    blocks = {
        "rows": Markup("[{}]").format(Markup(",\n").join(rows)),
        "tokens": Markup("\n".join(tokens)),  # noqa: S704
    }
    return render_page("microscope", title=title, facts=facts, **blocks)


def row_json(specimen: Specimen) -> list[Any]:
    """What the list and the search need of a row."""
    spans = [[span.trained + 2 * span.control, span.tokens, span.text] for span in specimen.spans]
    flags = (int(specimen.held_out), specimen.tokens, specimen.trained_tokens, int(specimen.truncated))
    return [specimen.origin, *flags, spans]


def tokens_json(specimen: Specimen) -> tuple[list[int], list[int]]:
    """Ids, and what each of them adds to the text."""
    ids: list[int] = []
    lengths: list[int] = []
    for span in specimen.spans:
        for glyph in span.glyphs:
            ids += glyph.ids
            lengths += [0] * (len(glyph.ids) - 1)
            lengths.append(len(glyph.text.encode("utf-16-le", "surrogatepass")) // 2)
    return ids, lengths
