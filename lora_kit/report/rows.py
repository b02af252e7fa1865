"""What the model learned from: every row accounted for, relatives, what the suites share with the rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lora_kit.report.plots import histogram
from lora_kit.report.wording import Facts, excerpt, finite, mapping, number, plain, stated

LISTED_ITEMS = 20
LISTED_PAIRS = 10
Table = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class DataView:
    """The data section of a report.

    Args:
        facts: Label and value.
        lost: What happened, to how many rows, the first of them.
        lengths: Longest length and examples of each bar.
        histogram: The same as a picture.
        categories: Name and rows.
        sources: Role, file, sha256.
        mix: Source, format, rows read, rows taken, conversations; empty without `data.mix`.
        seen: What of the suites stands in training rows: suite, item, part, how surely, where.
        pairs: Near duplicates: row, the row that it is like, similarity.
    """

    facts: Facts
    lost: Table
    lengths: tuple[tuple[str, int], ...]
    histogram: Markup
    categories: Table
    sources: Table
    mix: Table
    seen: Table
    pairs: Table


def data_view(data: Mapping[str, Any]) -> DataView:
    """Lay out a data report; an empty one gives an empty view."""
    lengths = length_bars(data)
    sources = [mapping(source) for source in data.get("sources") or ()]
    return DataView(
        facts=data_facts(data),
        lost=tuple(lost_rows(data)),
        lengths=tuple(lengths),
        histogram=histogram(lengths),
        categories=tuple(
            (plain(name), number(count)) for name, count in mapping(data.get("categories")).items()
        ),
        sources=tuple(tuple(plain(s.get(key)) for key in ("role", "file", "sha256")) for s in sources),
        mix=tuple(_mixed(mapping(part)) for part in data.get("mix") or ()),
        seen=tuple(seen_items(data))[:LISTED_ITEMS],
        pairs=tuple(near_pairs(data))[:LISTED_PAIRS],
    )


def data_facts(data: Mapping[str, Any]) -> Facts:
    """Counts, and how the rows were split."""
    longest = data.get("longest") or [{}]
    rows = (
        ("Format", data.get("format")),
        ("Rows read", _count(data.get("rows_read"))),
        ("Rows used", _count(data.get("rows_used"))),
        ("Training examples", _count(data.get("train_rows"))),
        ("Validation examples", _count(data.get("validation_rows"))),
        ("Tokens", _count(data.get("tokens"))),
        ("Trained tokens", _count(data.get("trained_tokens"))),
        (
            "Longest example",
            f"{number(longest[0].get('tokens'))} tokens, {longest[0].get('row')}" if longest[0] else None,
        ),
        ("Relatives", _relatives(mapping(data.get("split")))),
        ("Near duplicates", _near(mapping(data.get("near_duplicates")))),
        *((f"Suite {name}", told) for name, told in _overlaps(data)),
    )
    return stated(rows)


def lost_rows(data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what happened, to how many rows, the first of them) for everything that is worth a look."""
    tallies = {f"dropped: {reason}": tally for reason, tally in mapping(data.get("dropped")).items()}
    tallies |= {f"partly dropped: {reason}": t for reason, t in mapping(data.get("partly_dropped")).items()}
    single = {"truncated": "prompt cut", "duplicates": "duplicate", "empty_prompts": "empty prompt"}
    tallies |= {label: data.get(key) for key, label in single.items()}
    tallies |= {"contains NUL characters": data.get("nul_characters")}
    known = [(label.replace("_", " "), mapping(tally)) for label, tally in tallies.items()]
    return [
        (plain(label), number(tally["count"]), plain(", ".join(map(str, tally.get("rows", ())))))
        for label, tally in known
        if tally.get("count")
    ]


def length_bars(data: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(longest length, examples) of each bar of the histogram."""
    bars = [mapping(bar) for bar in data.get("histogram") or ()]
    return [
        (
            f"≤ {bar['up_to']:,}" if finite(bar.get("up_to")) else "longer",
            int(finite(bar.get("examples")) or 0),
        )
        for bar in bars
    ]


def seen_items(data: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield (suite, item, prompt or reference, how surely, rows) of what training rows hold of the suites."""
    for suite, overlap in mapping(data.get("suite_overlap")).items():
        for found in map(mapping, mapping(overlap).get("found") or ()):
            rows = ", ".join(map(str, found.get("rows") or ()))
            yield tuple(
                plain(part) for part in (suite, found.get("id"), found.get("part"), found.get("level"), rows)
            )


def near_pairs(data: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield (row, row that it is like, similarity) of the first near duplicates."""
    for pair in map(mapping, mapping(data.get("near_duplicates")).get("pairs") or ()):
        yield plain(pair.get("row")), plain(pair.get("like")), number(pair.get("similarity"), 2)


def _mixed(part: Mapping[str, Any]) -> tuple[str, ...]:
    counts = ("rows_read", "rows_taken", "conversations")
    return plain(part.get("source")), plain(part.get("format")), *(number(part.get(key)) for key in counts)


def _relatives(split: Mapping[str, Any]) -> str | None:
    """Say what keeping relatives together was good for."""
    together, random = finite(split.get("clustered_examples")), mapping(split.get("random_split"))
    leaked, held = finite(random.get("leaked_examples")), finite(random.get("validation_examples"))
    if not together or leaked is None:
        return None
    return (
        f"{number(together)} examples in {number(split.get('clusters'))} clusters, each kept on one side; "
        f"a random split would leak {number(leaked)} of {number(held)} validation examples"
    )


def _near(near: Mapping[str, Any]) -> str | None:
    if not near.get("count"):
        return None
    least = finite(near.get("similarity"))
    text = f"{number(near['count'])} rows like an earlier one (similarity {number(least)} or more)"
    if near.get("crowded"):
        text += "; some have so many that not all were compared"
    elif not near.get("is_complete"):
        text += f"; only the first {number(near.get('indexed_rows'))} rows were looked up in"
    return text


def _overlaps(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, overlap in mapping(data.get("suite_overlap")).items():
        parts = [
            f"{number(count)} {level}"
            for level, count in _by_level(mapping(overlap).get("found") or ()).items()
        ]
        of = f"of {number(mapping(overlap).get('items'))} items"
        seen = f"{', '.join(parts)} {of} in training rows" if parts else f"none {of} in training rows"
        yield excerpt(name), seen


def _by_level(found: Sequence[object]) -> dict[str, int]:
    """Count items, each by the surest that was found of its prompt or reference."""
    order = ("exact", "probable", "possible")
    surest: dict[str, int] = {}
    for one in map(mapping, found):
        if one.get("level") in order:
            item, rank = str(one.get("id")), order.index(one["level"])
            surest[item] = min(rank, surest.get(item, rank))
    ranks = list(surest.values())
    return {level: ranks.count(rank) for rank, level in enumerate(order) if rank in ranks}


def _count(value: object) -> str | None:
    return None if finite(value) is None else number(value)
