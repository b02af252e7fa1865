"""A judge's section of results.json, judgment by judgment, seen from the system that is judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lora_kit.report.wording import finite, mapping

Outcome = Literal["won", "tied", "lost", "orders disagree", "not judged"]


@dataclass(frozen=True, slots=True)
class Ballot:
    """One judgment.

    Args:
        item: Of which prompt.
        shown: Whose answers, in order.
        scores: Of these; empty if it was not judged.
        share: How far it is for the system, 0..1; None if it was not judged or one answer was shown.
        how: Layer that read the reply, or why there is no ruling.
        replies: What the judge said, one text an attempt.
    """

    item: str
    shown: tuple[str, ...]
    scores: tuple[float, ...]
    share: float | None
    how: str
    replies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Poll:
    """All judgments of one section.

    Args:
        system: Who is judged.
        against: With whom it is compared.
        ballots: In the order of asking.
    """

    system: str
    against: str
    ballots: tuple[Ballot, ...]


def read_poll(section: Mapping[str, Any], replies: Mapping[str, str]) -> Poll:
    """Read a section.

    Args:
        section: Of results.json.
        replies: Key to the text of a reply, from judgments.jsonl.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not what a judge writes.
    """
    system = str(section["system"])
    takes_all = "preference" in section and "relative" not in section
    ballots = [
        _ballot(mapping(entry), system, replies, is_share=takes_all) for entry in section.get("verdicts", ())
    ]
    return Poll(system, str(section["against"]), tuple(ballots))


def _ballot(entry: Mapping[str, Any], system: str, replies: Mapping[str, str], *, is_share: bool) -> Ballot:
    shown = tuple(str(name) for name in entry["shown"])
    scores = tuple(score for one in entry["scores"] or () if (score := finite(one)) is not None)
    share = None
    if len(shown) == len(scores) == 2:
        mine = scores[shown.index(system)] if system in shown else 0.0
        other = sum(scores) - mine
        share = mine if is_share else 0.5 if mine == other else float(mine > other)
    texts = tuple(replies[key] for key in map(str, entry.get("keys", ())) if key in replies)
    return Ballot(str(entry["item"]), shown, scores, share, str(entry["layer"] or entry["why"]), texts)


def by_item(poll: Poll) -> dict[str, list[Ballot]]:
    """Prompt to its judgments."""
    found: dict[str, list[Ballot]] = {}
    for ballot in poll.ballots:
        found.setdefault(ballot.item, []).append(ballot)
    return found


def share_of(ballots: Sequence[Ballot], poll: Poll) -> float | None:
    """How far a prompt's judgments are for the system, 0..1, the mean of both orders; None if not judged."""
    shares = [ballot.share for ballot in ballots if ballot.share is not None]
    if shares:
        return sum(shares) / len(shares)
    grades = {ballot.shown[0]: ballot.scores[0] for ballot in ballots if len(ballot.scores) == 1}
    if poll.system not in grades or poll.against not in grades:
        return None
    mine, other = grades[poll.system], grades[poll.against]
    return 0.5 if mine == other else float(mine > other)


def outcome_of(ballots: Sequence[Ballot], poll: Poll) -> Outcome:
    """What both orders together say of one prompt; a win needs both of them."""
    share = share_of(ballots, poll)
    if share is None:
        return "not judged"
    sides = {(s > 0.5) - (s < 0.5) for ballot in ballots if (s := ballot.share) is not None}
    if len(sides) > 1:
        return "orders disagree"
    return "won" if share > 0.5 else "lost" if share < 0.5 else "tied"


def counts(shares: Sequence[float | None]) -> tuple[int, int, int, int]:
    """Won, tied, lost, not judged."""
    known = [share for share in shares if share is not None]
    won, lost = sum(share > 0.5 for share in known), sum(share < 0.5 for share in known)
    return won, len(known) - won - lost, lost, len(shares) - len(known)
