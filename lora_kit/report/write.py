"""report.html and report.md from what a run has left on disk: same files in, same bytes out.

All text in them is foreign (prompts, answers, paths), so both templates escape every
value that they show: HTML by Jinja's autoescape, Markdown by ``finalize`` below.
"""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lora_kit.artifacts.commit import write_file
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.report.gather import gather
from lora_kit.report.self_contained import render_page
from lora_kit.report.view import ReportView, build_view

STYLES = ("report", "evaluation")
_PAGE = Path(__file__).parent / "page"
# What Markdown reads inside a line (links, emphasis, HTML, mentions, math), and what only at its start.
_INLINE = re.compile(r"([\\`*_\[\]<>&|~@$]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
_AT_START = re.compile(r"^(\d*)([#+=.)-])(?=[\s#+=-]|$)")


def write_report(run: RunDir) -> list[Path]:
    """Write both reports and the ledger of rows into the run directory, each whole or not at all.

    Returns:
        The HTML page and the Markdown file.

    Raises:
        DataError: The run has no training log yet, or it is damaged.
        MachineError: The disk can't take it.
    """
    facts = gather(run)
    view = build_view(facts)
    if facts.ledger:
        write_file(run.ledger, facts.ledger.to_csv())
    pages = {run.report_html: html_page(view), run.report_md: markdown_page(view)}
    for path, content in pages.items():
        write_file(path, content.encode("utf-8", "replace"))
    return list(pages)


def html_page(view: ReportView) -> str:
    """One self-contained HTML page."""
    return render_page("report", styles=STYLES, view=view)


def markdown_page(view: ReportView) -> str:
    """The same in Markdown tables, without the pictures."""
    return markdown("report", view=view)


def markdown(name: str, **values: object) -> str:
    """Render ``page/NAME.md.j2``; every value is escaped."""
    return _markdown().get_template(f"{name}.md.j2").render(**values)


class Verbatim(str):
    """Text that is Markdown already."""

    __slots__ = ()


def escape_markdown(value: object) -> str:
    r"""Text that shows as it is in a paragraph or table cell; line breaks become ``<br>``.

    Example:
        >>> escape_markdown("| <b>\n# no")
        '\\| \\<b\\><br>\\# no'
    """
    if isinstance(value, Verbatim):
        return value
    lines = (line.strip() for line in str(value).replace("\t", " ").split("\n"))
    return "<br>".join(_AT_START.sub(r"\1\\\2", _INLINE.sub(r"\\\1", line)) for line in lines)


def fenced(code: str, language: str) -> Verbatim:
    """A code block, with a fence that the code can't close."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return Verbatim(f"{fence}{language}\n{code.rstrip()}\n{fence}")


@cache
def _markdown() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_PAGE),
        autoescape=False,  # noqa: S701 - `finalize` escapes every value, for Markdown
        finalize=escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"verbatim": Verbatim, "fenced": fenced}
    return environment
