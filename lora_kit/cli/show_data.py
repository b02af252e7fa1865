"""Rows on a terminal: what became of them, and what the model will see of each."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from rich.table import Table
from rich.text import Text

from lora_kit.cli.bars import BAR_COLUMNS, bar_table
from lora_kit.cli.console import console
from lora_kit.report.microscope import Specimen
from lora_kit.report.microscope_text import heading, interlinear, running_text, shown, spans_json
from lora_kit.report.rows import data_facts, length_bars, lost_rows, near_pairs, seen_items
from lora_kit.report.wording import excerpt

LONGEST_ROWS = 5
BAD_ROWS = 10
LISTED_LINES = 5


def show_survey(report: Mapping[str, Any]) -> None:
    """Print what became of every row, and how long the examples are."""
    console.print(_facts(report))
    lost = lost_rows(report)
    if lost:
        table = Table("what happened", "rows", "the first of them", box=None, pad_edge=False)
        for what, count, rows in lost:
            table.add_row(what, count, Text(excerpt(shown(rows), BAR_COLUMNS * 2)))
        console.print()
        console.print(table)
    _show_pairs(report)
    for line in report["bad_rows"][:BAD_ROWS]:
        console.print(Text(shown(line)), soft_wrap=True)
    if report["histogram"]:
        console.print()
        console.print(bar_table("examples", length_bars(report)))
    if report["longest"]:
        console.print()
        console.print(_longest(report))


def _show_pairs(report: Mapping[str, Any]) -> None:
    """Print what is nearly the same, and what the suites share with the rows; the first of each."""
    tables = {
        ("near duplicate", "is like", "similarity"): near_pairs(report),
        ("suite", "item", "part", "how surely", "training rows"): seen_items(report),
    }
    for titles, lines in tables.items():
        table = Table(*titles, box=None, pad_edge=False)
        for column in table.columns:
            column.overflow = "fold"  # where a row stands is at the end of its name
        for line in islice(lines, LISTED_LINES):
            table.add_row(*(Text(excerpt(shown(cell), BAR_COLUMNS * 2)) for cell in line))
        if table.row_count:
            console.print()
            console.print(table)


def show_preview(specimens: Iterable[Specimen], *, ids: bool) -> None:
    """Print examples; where there is no colour, signs take its place."""
    marked = console.color_system is None or console.no_color
    for specimen in specimens:
        console.print(heading(specimen), soft_wrap=True)
        text = (
            interlinear(specimen, width=console.width, marked=marked)
            if ids
            else running_text(specimen, marked=marked)
        )
        console.print(text, soft_wrap=True)
        console.print()


def preview_json(specimens: Iterable[Specimen], *, ids: bool) -> list[dict[str, Any]]:
    """Examples as JSON values."""
    return [spans_json(specimen, ids=ids) for specimen in specimens]


def _facts(report: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for label, value in [*data_facts(report), *_more_facts(report)]:
        table.add_row(label, Text(shown(value)))
    if report["tokens"] is None:
        table.add_row("Tokens", "not counted: that takes a recipe, or --base MODEL")
    return table


def _more_facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("Format chosen", report["format_reason"])]
    if report["conversations"] != report["rows_read"]:
        facts.append(("Conversations", f"{report['conversations']:,}"))
    return facts + [
        (name.replace("_", " ").capitalize(), f"{count:,}") for name, count in report["counts"].items()
    ]


def _longest(report: Mapping[str, Any]) -> Table:
    table = Table("longest rows", "tokens", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for one in report["longest"][:LONGEST_ROWS]:
        table.add_row(Text(shown(one["row"])), f"{one['tokens']:,}")
    return table
