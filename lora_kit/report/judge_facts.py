"""What stands beside a judge's numbers: who judged, with which biases, and what was not judged."""

from collections.abc import Mapping
from typing import Any

from lora_kit.report.wording import Facts, excerpt, finite, mapping, number, plain, stated

LISTED = 30


def bias_facts(section: Mapping[str, Any]) -> Facts:
    """Position, length and agreement between the orders."""
    bias = mapping(section.get("bias"))
    pairs = finite(bias.get("pairs_in_both_orders"))
    rows = (
        ("Pairs judged in both orders", number(pairs) if pairs else None),
        ("Same verdict in both orders", _share(bias.get("consistent"))),
        ("First shown wins in both", _share(bias.get("first_in_both"))),
        ("Second shown wins in both", _share(bias.get("second_in_both"))),
        ("Kappa between the orders", _number(bias.get("kappa_between_orders"))),
        ("The longer answer wins", _share(bias.get("longer_wins"))),
        ("of verdicts with unequal lengths", _number(bias.get("decisive_with_unequal_length"))),
        (f"Mean length of {section.get('system')}", _characters(bias.get("mean_length_of_system"))),
        (f"Mean length of {section.get('against')}", _characters(bias.get("mean_length_of_other"))),
    )
    return stated(rows)


def judge_facts(section: Mapping[str, Any]) -> Facts:
    """Who judged, when, with which words and settings, at which cost."""
    judge, settings = mapping(section.get("judge")), mapping(section.get("settings"))
    spent, orders = mapping(section.get("spent")), section.get("orders")
    told = [f"{key} {value}" for key, value in settings.items() if value not in (None, {}, "")]
    rows = (
        ("Judge", judge.get("model")),
        ("At", judge.get("host")),
        (
            "Answered by",
            ", ".join(f"{name} ({n})" for name, n in mapping(section.get("answered_by")).items()),
        ),
        ("Date", section.get("date")),
        ("Prompt hash", section.get("prompt_hash")),
        ("Kind", section.get("kind")),
        ("Orders", {"both": "both, swapped", "one": "one, by a hash"}.get(str(orders))),
        ("Settings", ", ".join(told)),
        ("Asked in the last run", f"{number(section.get('asked'))} times"),
        ("Spent in the last run", _spent(spent)),
    )
    return stated(rows)


def _spent(spent: Mapping[str, Any]) -> str | None:
    read, written = spent.get("prompt_tokens"), spent.get("completion_tokens")
    if finite(read) is None:
        return None
    tokens = f"{number(read)} tokens read, {number(written)} written"
    return tokens if finite(spent.get("cost")) is None else f"{tokens}, cost {number(spent['cost'])}"


def account_text(section: Mapping[str, Any]) -> str:
    """How many were judged, and how their replies were read."""
    layers = ", ".join(f"{plain(name)} {n}" for name, n in mapping(section.get("layers")).items())
    text = (
        f"{number(section['judged'])} of {number(section['planned'])} judged, "
        f"{len(section['unparsed'])} unparsed, {len(section['errors'])} without a reply, "
        f"{len(section.get('asked_again', ()))} readable only when asked again."
    )
    return f"{text} Read from: {layers}." if layers else text


def problems_of(section: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """What was not judged: prompt, whose answers, what is wrong, the reply; at most ``LISTED``."""
    entries = [("unparsed", one) for one in section["unparsed"]]
    entries += [("no reply", one) for one in section["errors"]]
    found = [
        (
            plain(one["item"]),
            ", ".join(map(plain, one["shown"])),
            f"{what}: {plain(one['reason'])}",
            excerpt(one.get("reply", ""), 160),
        )
        for what, one in entries
    ]
    more = len(found) - LISTED
    return found[:LISTED] + ([("...", "", f"and {more} more", "")] if more > 0 else [])


def _share(value: object) -> str | None:
    known = finite(value)
    return None if known is None else f"{known:.1%}".replace("%", " %")


def _number(value: object) -> str | None:
    return None if finite(value) is None else number(value)


def _characters(value: object) -> str | None:
    return None if finite(value) is None else f"{number(value, 0)} characters"
