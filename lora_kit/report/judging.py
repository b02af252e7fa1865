"""One judge's section as a reader needs it: the verdict in words, the numbers, and what they rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lora_kit.report.ballots import Ballot, Poll, by_item, counts, outcome_of, read_poll, share_of
from lora_kit.report.judge_facts import account_text, bias_facts, judge_facts, problems_of
from lora_kit.report.judge_plots import LengthPoint, OutcomeRow, length_plot, outcome_bars
from lora_kit.report.plots import ForestRow
from lora_kit.report.wording import (
    MISSING,
    Facts,
    decimals_for,
    excerpt,
    finite,
    mapping,
    number,
    p_value,
    plain,
    signed,
    verdict_css,
)

MEASURES = (
    ("relative", "% of {against}, pooled over both orders"),
    ("grades", "mean grade"),
    ("preference", "win rate %"),
)


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One line of a judge's table; without a verdict it is a figure beside the others."""

    title: str
    value: str
    interval: str = ""
    difference: str = ""
    p: str = ""
    verdict: str = ""
    css: str = ""


@dataclass(frozen=True, slots=True)
class JudgeView:
    """One section.

    Args:
        title: Who judged whom, how.
        badge: Verdict in a word and its class.
        sentence: Verdict in a sentence.
        facts: Judge, date, prompt hash, settings, cost.
        rows: The numbers.
        bias: What the verdicts owe to place and length.
        bars: Won, tied and lost, for each order.
        outcomes: The same as numbers: title, won, tied, lost, not judged.
        scatter: Length against winning; empty without pairs.
        account: How many were judged.
        problems: Prompt, whose answers, what is wrong, the reply.
        flags: What a reader has to know.
        poll: Each judgment.
        judge: Whose verdicts they are.
    """

    title: str
    badge: tuple[str, str]
    sentence: str
    facts: Facts
    rows: tuple[ScoreRow, ...]
    bias: Facts
    bars: Markup
    outcomes: tuple[tuple[str, ...], ...]
    scatter: Markup
    account: str
    problems: tuple[tuple[str, str, str, str], ...]
    flags: tuple[str, ...]
    poll: Poll
    judge: str


def judge_view(
    section: Mapping[str, Any], replies: Mapping[str, str], items: Mapping[str, Mapping[str, Any]]
) -> JudgeView:
    """Read a section of results.json.

    Args:
        section: The section.
        replies: Key to the text of a reply.
        items: Items of results.json by id, for the lengths of answers.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not what a judge writes.
    """
    poll = read_poll(section, replies)
    names = {"system": plain(poll.system), "against": plain(poll.against)}
    rows = score_rows(section, names)
    main = next((row for row in rows if row.verdict), None)
    outcomes = _outcomes(poll)
    return JudgeView(
        title=f"{names['system']} against {names['against']}: {plain(section['title'])}",
        badge=(main.verdict, main.css) if main else ("not judged", "unclear"),
        sentence=_sentence(section, names, main),
        facts=judge_facts(section),
        rows=rows,
        bias=bias_facts(section),
        bars=outcome_bars(outcomes) if outcomes else Markup(""),
        outcomes=tuple((row.title, *map(str, row.counts)) for row in outcomes),
        scatter=_scatter(poll, items),
        account=account_text(section),
        problems=tuple(problems_of(section)),
        flags=tuple(plain(flag) for flag in section.get("flags", ())),
        poll=poll,
        judge=plain(mapping(section.get("judge")).get("model")),
    )


def score_rows(section: Mapping[str, Any], names: Mapping[str, str]) -> tuple[ScoreRow, ...]:
    """The table of a section."""
    rows = []
    for key, title in MEASURES:
        found = mapping(section.get(key))
        if found:
            rows.append(_measured(title.format(**names), found))
            rows += _beside(key, found, names)
    return tuple(rows)


def _measured(title: str, found: Mapping[str, Any]) -> ScoreRow:
    estimate, difference = mapping(found.get("estimate")), mapping(found.get("difference"))
    if not estimate or not difference:
        return ScoreRow(title, MISSING, verdict="can't tell", css="unclear")
    digits = decimals_for(estimate["low"], estimate["high"])
    low, high = number(estimate["low"], digits), number(estimate["high"], digits)
    verdict = str(difference["verdict"])
    return ScoreRow(
        title=title,
        value=number(estimate["value"], digits),
        interval=f"{low} to {high}",
        difference=signed(difference["difference"], digits),
        p=p_value(difference.get("p")),
        verdict=plain(verdict),
        css=verdict_css(verdict),
    )


def _beside(key: str, found: Mapping[str, Any], names: Mapping[str, str]) -> list[ScoreRow]:
    if key == "relative":
        orders = (("reference_first", "second"), ("system_first", "first"))
        rows = [
            ScoreRow(f"{names['system']} shown {place}", number(mapping(found.get(order)).get("pct"), 2))
            for order, place in orders
        ]
        return [*rows, ScoreRow("mean of both orders", number(found.get("mean_of_orders"), 2))]
    if key == "grades":
        return [ScoreRow(f"mean grade of {names['against']}", number(found.get("against"), 2))]
    both = mapping(found.get("both_orders_agree"))
    text = ", ".join(f"{number(both[word])} {word}" for word in ("win", "tie", "loss") if word in both)
    return [ScoreRow("where both orders agree", text)] if text else []


def forest_row(view: JudgeView, section: Mapping[str, Any]) -> ForestRow | None:
    """The first number of a section with an interval, as a line of the forest plot."""
    for key, _ in MEASURES:
        outcome = mapping(mapping(section.get(key)).get("difference"))
        ends = [finite(outcome.get(name)) for name in ("low", "difference", "high")]
        known = [end for end in ends if end is not None]
        if len(known) == len(ends):
            digits = decimals_for(known[0], known[2])
            low, middle, high = (signed(end, digits) for end in known)
            figures = f"{middle} ({low} to {high})"
            who = f"{plain(view.poll.system)} vs {plain(view.poll.against)}"
            title = excerpt(f"{view.judge}, {plain(section['kind'])}: {who}", 40)
            css = verdict_css(outcome.get("verdict"))
            return ForestRow(title, known[0], known[1], known[2], css, figures)
    return None


def _outcomes(poll: Poll) -> list[OutcomeRow]:
    system, against = plain(poll.system), plain(poll.against)
    orders = (((poll.system, poll.against), "first"), ((poll.against, poll.system), "second"))
    rows = []
    for shown, place in orders:
        shares = [ballot.share for ballot in poll.ballots if ballot.shown == shown]
        if shares:
            rows.append(OutcomeRow(f"{system} shown {place}", counts(shares)))
    items = by_item(poll)
    if not items:
        return []
    found = [outcome_of(ballots, poll) for ballots in items.values()]
    won, lost, unjudged = (found.count(word) for word in ("won", "lost", "not judged"))
    title = f"{system} vs {against}, both orders" if len(rows) > 1 else f"{system} vs {against}"
    return [*rows, OutcomeRow(title, (won, len(found) - won - lost - unjudged, lost, unjudged))]


def _scatter(poll: Poll, items: Mapping[str, Mapping[str, Any]]) -> Markup:
    points = []
    for name, ballots in by_item(poll).items():
        share, sizes = share_of(ballots, poll), _lengths(items.get(name), poll)
        if share is not None and sizes:
            points.append(LengthPoint(plain(name), sizes[0] / sizes[1], share))
    return length_plot(points) if points else Markup("")


def _lengths(item: Mapping[str, Any] | None, poll: Poll) -> tuple[int, int] | None:
    """Characters of both answers; None unless both say something."""
    if item is None:
        return None
    answers = mapping(item.get("answers"))
    found = [
        len(str(mapping(answers.get(name)).get("text") or ""))
        or (len(str(item["reference"])) * (name == "reference"))
        for name in (poll.system, poll.against)
    ]
    return (found[0], found[1]) if all(found) else None


def _sentence(section: Mapping[str, Any], names: Mapping[str, str], main: ScoreRow | None) -> str:
    judge = plain(mapping(section.get("judge")).get("model"))
    opening = f"By {judge}'s verdicts on {number(section.get('prompts'))} prompts"
    if main is None or main.value == MISSING:
        return f"{opening} nothing can be said of {names['system']} against {names['against']}."
    figures = f"{main.title} {main.value} (95 % interval {main.interval})"
    if main.verdict == "can't tell":
        whether = f"{names['system']} is better or worse than {names['against']}"
        return f"{opening} one can't tell whether {whether}: {figures}."
    return f"{opening} {names['system']} is {main.verdict} than {names['against']}: {figures}."


def scores_text(ballot: Ballot) -> str:
    """The scores of one judgment, each with whose it is."""
    pairs = zip(ballot.shown, ballot.scores, strict=False)
    return ", ".join(f"{plain(name)} {number(score)}" for name, score in pairs)


def outcomes(views: Sequence[JudgeView]) -> dict[str, str]:
    """Prompt to its outcome in the first section."""
    if not views:
        return {}
    poll = views[0].poll
    return {name: outcome_of(ballots, poll) for name, ballots in by_item(poll).items()}
