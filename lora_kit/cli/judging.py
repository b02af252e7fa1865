"""The terminal side of judging: progress, the table of results, and the screen on which a person votes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.rule import Rule
from rich.table import Table

from lora_kit.cli.console import console, messages
from lora_kit.cli.progress import observing
from lora_kit.harness.judging.backends.person import Terminal
from lora_kit.harness.judging.run import JudgeJob, judge
from lora_kit.harness.judging.sides import Pairing
from lora_kit.harness.judging.who import JudgeChoice, open_judge

SHOWN = 10


def judge_and_show(
    pairing: Pairing, choice: JudgeChoice, job: JudgeJob, folder: Path, *, quiet: bool
) -> dict[str, Any]:
    """Judge with progress on standard error; the table goes to standard output unless ``quiet``."""
    backend = open_judge(choice, terminal=Terminal(_show_question, _read_vote))
    try:
        with observing() as observer:
            section = judge(
                pairing,
                backend,
                job,
                folder,
                on_estimate=lambda estimate: observer.phase(f"judging: {estimate}"),
                on_progress=None if choice.source == "person" else observer.progress,
            )
    finally:
        backend.close()
    if not quiet:
        show_section(section)
        _say(f"judgments: {folder / 'judgments.jsonl'}\nresults: {folder / 'results.json'}")
    return section


def show_section(section: Mapping[str, Any]) -> None:
    """Write what a judge found: numbers with intervals first, then everything that speaks against them."""
    judge_of = section["judge"]
    sides = f"{section['system']} against {section['against']}"
    _say(f"{sides}, judged by {judge_of['model']} ({section['title']})")
    table = Table(box=None, pad_edge=False)
    for name in ("", "value", "95 % interval", "verdict"):
        table.add_column(name, justify="left" if name in ("", "verdict") else "right")
    for row in _rows(section):
        table.add_row(*row)
    console.print(table)
    _say(f"judged {section['judged']} of {section['planned']}, asked {section['asked']} times")
    for title, name in (
        ("unparsed", "unparsed"),
        ("without a reply", "errors"),
        ("asked again", "asked_again"),
    ):
        _show_entries(title, section[name])
    for flag in section["flags"]:
        _say(f"! {flag}")


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


def _show_entries(title: str, entries: Sequence[Mapping[str, Any]]) -> None:
    for entry in entries[:SHOWN]:
        reply = f": {' '.join(entry['reply'].split())[:60]!r}" if "reply" in entry else ""
        _say(f"  {title}: {entry['item']} ({', '.join(entry['shown'])}), {entry['reason']}{reply}")
    if len(entries) > SHOWN:
        _say(f"  {title}: ... and {len(entries) - SHOWN} more, in results.json")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _show_question(parts: Sequence[tuple[str, str]]) -> None:
    for heading, text in parts:
        messages.print(Rule(heading))
        messages.print(text, markup=False, highlight=False)


def _read_vote(prompt: str) -> str:
    return messages.input(f"{prompt}: ", markup=False)
