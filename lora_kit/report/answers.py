"""One prompt with every system's answer, side by side, what the judges said of it, and what it shows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_kit.report.ballots import Ballot, by_item, outcome_of, share_of
from lora_kit.report.judging import JudgeView, scores_text
from lora_kit.report.wording import excerpt, finite, mapping, number, plain, signed


@dataclass(frozen=True, slots=True)
class AnswerView:
    """One system's answer: its text, figures about it in one line, and the rules that it was checked by.

    Args:
        model: Whose.
        text: The answer.
        figures: Length, end, likelihood, scores.
        checks: Each rule in words, and whether the answer keeps it.
    """

    model: str
    text: str
    figures: str
    checks: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class VerdictView:
    """One judgment of the prompt: who was shown in which order, the scores, and every word of the judge."""

    title: str
    scores: str
    how: str
    replies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ItemView:
    """A prompt with the reference and all answers.

    Args:
        id: Of the prompt.
        category: Of the prompt.
        head: Its beginning.
        prompt: All of it.
        reference: The suite's own answer.
        answers: All systems', the baseline first.
        trend: Whether the reference became likelier: better, worse or empty.
        change: By how much, in words.
        shift: The same as a number of bits per byte to sort by; empty if there is none.
        others: More references, where the suite has them.
        outcome: By the first judge: won, tied, lost, orders disagree, not judged; empty without one.
        share: How far that judge is for the system, 0..1, as text to sort by; empty if it is not.
        length: Longest answer in characters, to sort by.
        verdicts: What all judges said.
        leak: Where the prompt or its answer stands in training rows; empty if nowhere.
        failed: Whether an answer breaks a rule.
    """

    id: str
    category: str
    head: str
    prompt: str
    reference: str
    answers: tuple[AnswerView, ...]
    trend: str
    change: str
    shift: str = ""
    others: tuple[str, ...] = ()
    outcome: str = ""
    share: str = ""
    length: int = 0
    verdicts: tuple[VerdictView, ...] = ()
    leak: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """All that judges said, by prompt.

    Args:
        views: The sections.
        ballots: Prompt -> (title of the section, judgment), the ranking's included.
    """

    views: Sequence[JudgeView]
    ballots: Mapping[str, Sequence[tuple[str, Ballot]]]


def judged(views: Sequence[JudgeView], others: Iterable[tuple[str, Ballot]] = ()) -> Judged:
    """Sort judgments by prompt.

    Args:
        views: The sections.
        others: More judgments, each with the title of its judge.
    """
    found: dict[str, list[tuple[str, Ballot]]] = {}
    listed = [(view.judge, ballot) for view in views for ballot in view.poll.ballots]
    for title, ballot in [*listed, *others]:
        found.setdefault(ballot.item, []).append((title, ballot))
    return Judged(views, found)


def item_views(
    items: Sequence[Mapping[str, Any]], models: Sequence[str], said: Judged, leaks: Mapping[str, str]
) -> tuple[ItemView, ...]:
    """Read the items of results.json.

    Args:
        items: The items.
        models: Names in the order of columns, the baseline first.
        said: By judges.
        leaks: Prompt -> where it stands in training rows.

    Raises:
        KeyError, TypeError, AttributeError: They are not what the harness writes.
    """
    first = by_item(said.views[0].poll) if said.views else {}
    found = []
    for item in items:
        name = str(item["id"])
        view = said.views[0] if name in first else None
        share = share_of(first[name], view.poll) if view else None
        outcome = outcome_of(first[name], view.poll) if view else ""
        found.append(_item(item, models, said, (outcome, share), leaks.get(name, "")))
    return tuple(found)


def _item(
    item: Mapping[str, Any],
    models: Sequence[str],
    said: Judged,
    result: tuple[str, float | None],
    leak: str,
) -> ItemView:
    answers = [(model, item["answers"][model]) for model in models if model in item["answers"]]
    evaluated = [answer for _, answer in answers if answer.get("nats") is not None]
    change = _bits(evaluated[-1]) - _bits(evaluated[0]) if len(evaluated) > 1 else math.nan
    shown = tuple(AnswerView(plain(m), plain(a["text"]), _about(a), _checks(a)) for m, a in answers)
    outcome, share = result
    return ItemView(
        id=plain(item["id"]),
        category=plain(item.get("category") or "none"),
        head=excerpt(item["prompt"]),
        prompt=plain(item["prompt"]),
        reference=plain(item["reference"]),
        answers=shown,
        trend="" if math.isnan(change) or change == 0 else "better" if change < 0 else "worse",
        change="" if math.isnan(change) else f"{signed(change, 2)} bits per byte",
        shift="" if math.isnan(change) else f"{change:.6f}",
        others=tuple(plain(text) for text in item.get("other_references") or ()),
        outcome=outcome,
        share="" if share is None else f"{share:.4f}",
        length=max((len(answer.text) for answer in shown), default=0),
        verdicts=tuple(_verdict(title, ballot) for title, ballot in said.ballots.get(str(item["id"]), ())),
        leak=leak,
        failed=any(not kept for answer in shown for _, kept in answer.checks),
    )


def _verdict(title: str, ballot: Ballot) -> VerdictView:
    shown = ", then ".join(map(plain, ballot.shown))
    replies = tuple(plain(text) or "(nothing)" for text in ballot.replies)
    return VerdictView(f"{title} saw {shown}", scores_text(ballot) or "no score", plain(ballot.how), replies)


def _bits(answer: Mapping[str, Any]) -> float:
    """Bits per byte of the reference, NaN if it was not measured."""
    nats, length = finite(answer.get("nats")), finite(answer.get("bytes"))
    return math.nan if nats is None or not length else nats / math.log(2) / length


def _about(answer: Mapping[str, Any]) -> str:
    """Figures of an answer; one that was only judged has its length alone."""
    if "tokens" not in answer:
        return f"{len(str(answer['text'])):,} characters"
    bits = _bits(answer)
    scores = [f"{plain(name)} {number(score, 1)}" for name, score in mapping(answer.get("scores")).items()]
    end = "ended by itself" if answer.get("stopped") else "cut at the limit"
    likely = [] if math.isnan(bits) else [f"reference {number(bits, 2)} bits per byte"]
    return ", ".join([f"{number(answer.get('tokens'))} tokens", end, *likely, *scores])


def _checks(answer: Mapping[str, Any]) -> tuple[tuple[str, bool], ...]:
    found = [mapping(check) for check in answer.get("checks") or ()]
    return tuple((_rule(check), check.get("passed") is True) for check in found)


def _rule(check: Mapping[str, Any]) -> str:
    rule, why = excerpt(check.get("wanted") or check.get("type"), 120), check.get("reason")
    return f"{rule}: {excerpt(why, 120)}" if why else rule
