"""The terminal side of judging: progress, the table of results, and the screen on which a person votes."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.rule import Rule
from rich.table import Table

from lora_kit.cli.console import console, messages
from lora_kit.cli.progress import RichObserver, observing
from lora_kit.harness.judging.backends.person import Terminal
from lora_kit.harness.judging.budget import CostEstimate
from lora_kit.harness.judging.run import JudgeJob, judge
from lora_kit.harness.judging.sides import Pairing
from lora_kit.harness.judging.who import PERSON, JudgeChoice, open_judge

SHOWN = 10


def judge_and_show(
    pairing: Pairing, choice: JudgeChoice, job: JudgeJob, folder: Path, *, quiet: bool
) -> dict[str, Any]:
    """Judge with progress on standard error; the table goes to standard output unless ``quiet``."""
    backend = open_judge(choice, terminal=Terminal(show_question, read_vote))
    try:
        with observing() as observer:
            section = judge(
                pairing,
                backend,
                job,
                folder,
                on_estimate=partial(say_estimate, observer),
                on_progress=None if choice.source == PERSON else observer.progress,
            )
    finally:
        backend.close()
    page = write_page(folder)
    if not quiet:
        show_section(section)
        say_where(folder, page)
    return section


def say_estimate(observer: RichObserver, estimate: CostEstimate) -> None:
    """Tell what judging will take, before the first request."""
    observer.phase(f"judging: {estimate}")


def write_page(folder: Path) -> Path:
    """Write the pages about a folder of judgments (or its run's report anew); gives the HTML one."""
    from lora_kit.report.evaluation_page import report_on

    return report_on(folder)[0]


def say_where(folder: Path, page: Path) -> None:
    """Name the files that judging leaves."""
    say(f"judgments: {folder / 'judgments.jsonl'}\nresults: {folder / 'results.json'}\nreport: {page}")


def show_section(section: Mapping[str, Any]) -> None:
    """Write what a judge found: numbers with intervals first, then everything that speaks against them."""
    judge_of = section["judge"]
    sides = f"{section['system']} against {section['against']}"
    say(f"{sides}, judged by {judge_of['model']} ({section['title']})")
    table = Table(box=None, pad_edge=False)
    for name in ("", "value", "95 % interval", "verdict"):
        table.add_column(name, justify="left" if name in ("", "verdict") else "right")
    for row in _rows(section):
        table.add_row(*row)
    console.print(table)
    say(f"judged {section['judged']} of {section['planned']}, asked {section['asked']} times")
    for title, name in (
        ("unparsed", "unparsed"),
        ("without a reply", "errors"),
        ("asked again", "asked_again"),
    ):
        show_entries(title, section[name])
    for flag in section["flags"]:
        say(f"! {flag}")


def _rows(section: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    if relative := section.get("relative"):
        names = {
            "reference_first": f"% of {section['against']}, shown second",
            "system_first": f"% of {section['against']}, shown first",
        }
        rows += [(text, _number(relative[order]["pct"]), "", "") for order, text in names.items()]
        rows.append(("% mean of both orders", _number(relative["mean_of_orders"]), "", ""))
        rows.append(_estimate_row(f"% of {section['against']}, pooled", relative))
    if grades := section.get("grades"):
        rows.append(_estimate_row("mean grade", grades))
        rows.append((f"mean grade of {section['against']}", _number(grades["against"]), "", ""))
    if preference := section.get("preference"):
        counts = f"{preference['win']} wins, {preference['tie']} ties, {preference['loss']} losses"
        rows.append(_estimate_row(f"win rate % ({counts})", preference))
        rows.append(("same verdict in both orders", _percent(section["bias"]["consistent"]), "", ""))
        rows.append(("first shown wins in both", _percent(section["bias"]["first_in_both"]), "", ""))
        rows.append(("the longer answer wins", _percent(section["bias"]["longer_wins"]), "", ""))
    return rows


def _estimate_row(text: str, found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    estimate, difference = found["estimate"], found["difference"]
    if estimate is None:
        return text, "-", "", "can't tell"
    interval = f"{_number(estimate['low'])} .. {_number(estimate['high'])}"
    return text, _number(estimate["value"]), interval, difference["verdict"]


def show_entries(title: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """List judgments that need a word each, the first ten."""
    for entry in entries[:SHOWN]:
        reply = f": {' '.join(entry['reply'].split())[:60]!r}" if "reply" in entry else ""
        say(f"  {title}: {entry['item']} ({', '.join(entry['shown'])}), {entry['reason']}{reply}")
    if len(entries) > SHOWN:
        say(f"  {title}: ... and {len(entries) - SHOWN} more, in results.json")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def say(text: str) -> None:
    """Write a line to standard output as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_question(parts: Sequence[tuple[str, str]]) -> None:
    """Put a question before a person."""
    for heading, text in parts:
        messages.print(Rule(heading))
        messages.print(text, markup=False, highlight=False)


def read_vote(prompt: str) -> str:
    """Wait for what a person types."""
    return messages.input(f"{prompt}: ", markup=False)
