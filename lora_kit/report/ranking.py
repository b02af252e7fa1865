"""Many systems in one order: ratings with intervals, every pair's verdict, and what stands against them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lora_kit.report.judge_facts import account_text, bias_facts, judge_facts, problems_of
from lora_kit.report.judge_plots import OutcomeRow, RankRow, outcome_bars, rank_plot
from lora_kit.report.wording import (
    MISSING,
    Facts,
    decimals_for,
    finite,
    mapping,
    number,
    p_value,
    plain,
    signed,
    verdict_css,
)

PLAYERS = (
    "Place",
    "System",
    "Bradley-Terry",
    "Elo",
    "Win rate %",
    "at equal length %",
    "Won, tied, lost",
    "Mean length",
)
PAIRS = ("Pair", "Win rate %", "Over 50 %", "p (Holm)", "at equal length %", "Won, tied, lost", "Verdict")


@dataclass(frozen=True, slots=True)
class PairRow:
    """One pair: cells as in ``PAIRS`` without the verdict, and the verdict with its class and hint."""

    cells: tuple[str, ...]
    verdict: str
    css: str
    hint: str


@dataclass(frozen=True, slots=True)
class RankingView:
    """A ranking as a reader needs it."""

    sentence: str
    badge: tuple[str, str]
    plot: Markup
    titles: tuple[str, ...]
    players: tuple[tuple[str, ...], ...]
    pair_titles: tuple[str, ...]
    pairs: tuple[PairRow, ...]
    bars: Markup
    bias: Facts
    facts: Facts
    account: str
    problems: tuple[tuple[str, str, str, str], ...]
    flags: tuple[str, ...]


def ranking_view(ranking: Mapping[str, Any]) -> RankingView:
    """Read ``ranking`` of results.json.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not what a comparison writes.
    """
    players = [mapping(player) for player in ranking["players"]]
    pairs = [mapping(pair) for pair in ranking["pairs"]]
    ranked = [row for player in players if (row := _rank_row(player))]
    bars = [OutcomeRow(_names(pair), _record(pair)) for pair in pairs]
    sentence, badge = _verdict(players, pairs)
    return RankingView(
        sentence=sentence,
        badge=badge,
        plot=rank_plot(ranked, "Bradley-Terry rating, mean 1000") if ranked else Markup(""),
        titles=PLAYERS,
        players=tuple(_player(player) for player in players),
        pair_titles=PAIRS,
        pairs=tuple(_pair(pair) for pair in pairs),
        bars=outcome_bars(bars) if bars else Markup(""),
        bias=(*bias_facts(ranking), *_taste(mapping(ranking.get("bias")))),
        facts=judge_facts(ranking),
        account=account_text(ranking),
        problems=tuple(problems_of(ranking)),
        flags=tuple(plain(flag) for flag in (*ranking.get("cautions", ()), *ranking.get("flags", ()))),
    )


def _verdict(players: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> tuple[str, tuple[str, str]]:
    """The leader, and over whom its lead is sure."""
    if not players:
        return "Nobody was ranked.", ("not judged", "unclear")
    best = str(players[0]["name"])
    beaten = [
        str(pair["b"] if pair["a"] == best else pair["a"])
        for pair in pairs
        if (pair["a"] == best and pair.get("verdict") == "better")
        or (pair["b"] == best and pair.get("verdict") == "worse")
    ]
    rivals = [str(player["name"]) for player in players[1:] if str(player["name"]) not in beaten]
    if not rivals and beaten:
        return f"{plain(best)} is better than each of the others.", (f"{plain(best)} leads", "good")
    opening = f"{plain(best)} has the highest rating"
    sure = f" and is better than {_listed(beaten)}" if beaten else ""
    unsure = f"; one can't tell it from {_listed(rivals)}" if rivals else ""
    return f"{opening}{sure}{unsure}.", ("no sure winner", "unclear")


def _listed(names: list[str]) -> str:
    shown = [plain(name) for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _rank_row(player: Mapping[str, Any]) -> RankRow | None:
    rating = mapping(player.get("bradley_terry"))
    ends = [finite(rating.get(name)) for name in ("low", "rating", "high")]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return None
    low, middle, high = known
    figures = f"{number(middle, 0)} ({number(low, 0)} to {number(high, 0)})"
    return RankRow(plain(player["name"]), low, middle, high, figures)


def _player(player: Mapping[str, Any]) -> tuple[str, ...]:
    best, worst = player.get("best_rank"), player.get("worst_rank")
    place = number(player.get("rank"))
    rated = _rank_row(player)
    length = finite(player.get("mean_length"))
    return (
        place if best == worst else f"{place} ({number(best)} to {number(worst)})",
        plain(player["name"]),
        rated.figures if rated else MISSING,
        _elo(mapping(player.get("elo"))),
        _rate(player.get("win_rate")),
        _rate(player.get("length_controlled")),
        _record_text(player),
        MISSING if length is None else number(length, 0),
    )


def _pair(pair: Mapping[str, Any]) -> PairRow:
    verdict = plain(pair.get("verdict") or "not judged")
    more, visible = finite(pair.get("more_items_needed")), finite(pair.get("smallest_visible"))
    hints = [f"these prompts would show a difference of {number(visible)} points" if visible else ""]
    if more and verdict == "can't tell":
        hints.append(f"about {number(more)} more prompts would decide it")
    cells = (
        _names(pair),
        _rate(pair.get("win_rate")),
        signed(pair.get("difference"), 1),
        p_value(pair.get("p_holm")),
        _rate(pair.get("length_controlled")),
        _record_text(pair),
    )
    return PairRow(cells, verdict, verdict_css(verdict), "; ".join(filter(None, hints)))


def _names(pair: Mapping[str, Any]) -> str:
    return f"{plain(pair['a'])} vs {plain(pair['b'])}"


def _record(found: Mapping[str, Any]) -> tuple[int, int, int, int]:
    record = mapping(found.get("record"))
    won, tied, lost = (int(record.get(word) or 0) for word in ("win", "tie", "loss"))
    return won, tied, lost, int(found.get("unjudged") or 0)


def _record_text(found: Mapping[str, Any]) -> str:
    won, tied, lost, unjudged = _record(found)
    return f"{won}, {tied}, {lost}" + (f" ({unjudged} not judged)" if unjudged else "")


def _rate(value: object) -> str:
    """A rate with its interval."""
    found = mapping(value)
    if finite(found.get("value")) is None:
        return MISSING
    digits = decimals_for(found.get("low"), found.get("high"))
    low, high = number(found.get("low"), digits), number(found.get("high"), digits)
    return f"{number(found['value'], digits)} ({low} to {high})"


def _taste(bias: Mapping[str, Any]) -> Facts:
    taste = mapping(bias.get("taste_for_length"))
    if finite(taste.get("value")) is None:
        return ()
    low, high = signed(taste.get("low"), 2), signed(taste.get("high"), 2)
    return (("Log-odds for the longer, at equal quality", f"{signed(taste['value'], 2)} ({low} to {high})"),)


def _elo(elo: Mapping[str, Any]) -> str:
    mean = finite(elo.get("mean"))
    return MISSING if mean is None else f"{number(mean, 0)} ± {number(elo.get('sd'), 0)}"
