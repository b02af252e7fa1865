"""The terminal side of comparing: progress, ranking, who is better than whom, and what speaks against it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from lora_kit.cli.console import console
from lora_kit.cli.judging import (
    read_vote,
    say,
    say_estimate,
    say_where,
    show_entries,
    show_question,
    write_page,
)
from lora_kit.cli.progress import observing
from lora_kit.cli.show import STYLES
from lora_kit.harness.comparing.contestants import Field, read_field
from lora_kit.harness.comparing.run import CompareJob, answer_all, compare, pairs_of
from lora_kit.harness.judging.backends.person import Terminal
from lora_kit.harness.judging.who import LOCAL, PERSON, JudgeChoice, open_judge
from lora_kit.recipe.schema import EvaluateSpec


def compare_and_show(
    asked: tuple[Sequence[str], str | None],
    spec: EvaluateSpec,
    choice: JudgeChoice,
    job: CompareJob,
    out: Path | None,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Answer, judge and rank with progress on standard error; tables go to standard output unless ``quiet``.

    Args:
        asked: Sources and suite, as typed.
        spec: How models answer.
        choice: Who judges.
        job: How.
        out: The folder; ``evaluations/compare-SUITE`` if None.
        quiet: No tables.
    """
    field = read_field(*asked, max_new_tokens=spec.max_new_tokens)
    pairs_of([one.name for one in field.contestants], job)
    folder = out or Path("evaluations") / f"compare-{field.suite.name}"
    section = _judged(field, spec, choice, job, folder)
    page = write_page(folder)
    if not quiet:
        show_ranking(section)
        say_where(folder, page)
    return section


def _judged(
    field: Field, spec: EvaluateSpec, choice: JudgeChoice, job: CompareJob, folder: Path
) -> dict[str, Any]:
    """Answers first, then the judge.

    A local judge is loaded when the contestants have left memory; any other is checked before they are asked.
    """
    terminal = Terminal(show_question, read_vote)
    backend = None if choice.source.startswith(LOCAL) else open_judge(choice, terminal=terminal)
    try:
        with observing() as observer:
            contest = answer_all(field, spec, folder, on_phase=observer.phase, on_progress=observer.progress)
            backend = backend or open_judge(choice, terminal=terminal)
            on_progress = None if choice.source == PERSON else observer.progress
            on_estimate = partial(say_estimate, observer)
            return compare(contest, backend, job, folder, on_estimate=on_estimate, on_progress=on_progress)
    finally:
        if backend is not None:
            backend.close()


def show_ranking(section: Mapping[str, Any]) -> None:
    """Write the ranking, the pairs, and everything that a reader has to know before believing it."""
    say(
        f"{len(section['players'])} systems on {section['prompts']} prompts of {section['suite']}, "
        f"judged by {section['judge']['model']} ({section['title']})"
    )
    console.print(_players(section["players"]))
    console.print(_pairs(section["pairs"]))
    visible = section["smallest_visible"]
    if visible is not None:
        shared = f" ({section['tests']} pairs share the 5 % of error)" if section["tests"] > 1 else ""
        say(f"these prompts show differences of {visible:.1f} points of win rate in 80 % of cases{shared}")
    for line in _bias_lines(section["bias"]):
        say(line)
    say(f"judged {section['judged']} of {section['planned']}, asked {section['asked']} times")
    for title, name in (("unparsed", "unparsed"), ("without a reply", "errors")):
        show_entries(title, section[name])
    for caution in (*section["cautions"], *section["flags"]):
        say(f"! {caution}")


def _players(players: Sequence[Mapping[str, Any]]) -> Table:
    """Best first: rank with what the verdicts leave open, ratings, win rates with their standard errors."""
    table = Table(box=None, pad_edge=False)
    headings = ("rank", "system", "Bradley-Terry", "Elo", "win rate %", "equal length", "chars")
    for name in headings:
        side: Literal["left", "right"] = "left" if name == "system" else "right"
        table.add_column(name, justify=side, no_wrap=name != "system", overflow="fold")
    for one in players:
        if one["rank"] is None:
            table.add_row("-", _plain(one["name"]), *["-"] * 4, f"{one['mean_length']:.0f}")
            continue
        table.add_row(
            f"{one['rank']} ({one['best_rank']}-{one['worst_rank']})",
            _plain(one["name"]),
            _interval(one["bradley_terry"], "rating", 0),
            f"{one['elo']['mean']:.0f}",
            _with_error(one["win_rate"]),
            _with_error(one["length_controlled"]),
            f"{one['mean_length']:.0f}",
        )
    return table


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Table:
    """Win rates of the first of each pair with 95 % intervals, and what follows among all pairs."""
    table = Table(box=None, pad_edge=False)
    headings = ("pair", "win rate %", "equal length", "p", "verdict", "needs prompts")
    for name in headings:
        side: Literal["left", "right"] = "left" if name in ("pair", "verdict") else "right"
        table.add_column(name, justify=side, no_wrap=name != "pair", overflow="fold")
    for one in pairs:
        more = one["more_items_needed"]
        table.add_row(
            _plain(f"{one['a']} : {one['b']}"),
            _interval(one["win_rate"], "value", 0),
            _interval(one["length_controlled"], "value", 0),
            "<0.001" if one["p_holm"] < 0.001 else f"{one['p_holm']:.3f}",
            f"[{STYLES[one['verdict']]}]{one['verdict']}[/]",
            f"+{more:,}" if more else "",
        )
    return table


def _bias_lines(bias: Mapping[str, Any]) -> list[str]:
    """Position and length, where they could be measured."""
    lines = []
    if bias["consistent"] is not None:
        kappa = "-" if bias["kappa_between_orders"] is None else f"{bias['kappa_between_orders']:.2f}"
        lines.append(
            f"same verdict in both orders {bias['consistent']:.1%} (kappa {kappa}); "
            f"first shown wins both {bias['first_in_both']:.1%}, second {bias['second_in_both']:.1%}"
        )
    if bias["longer_wins"] is not None:
        lines.append(f"the longer answer wins {bias['longer_wins']:.1%} of what was decided")
    return lines


def _interval(found: Mapping[str, Any], name: str, digits: int) -> str:
    return f"{found[name]:.{digits}f} ({found['low']:.{digits}f}..{found['high']:.{digits}f})"


def _with_error(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.1f} ± {found['standard_error']:.1f}"


def _plain(text: str) -> str:
    """A name is no markup."""
    return text.replace("[", "\\[")
