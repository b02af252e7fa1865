"""A plan on a terminal."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import dropwhile
from typing import Any

from rich.table import Table
from rich.text import Text

from lora_kit.artifacts.disk import readable_bytes
from lora_kit.cli.bars import bar_table
from lora_kit.cli.console import console
from lora_kit.planning.outlook import Change, Outlook, Rows

MOST_FACTORS = {"step_seconds": "steps", "other_seconds": "the rest", "memory_bytes": "memory"}


def show_plan(outlook: Outlook) -> None:
    """Print a plan."""
    console.print(_bars(outlook.rows))
    console.print()
    table = Table(box=None, pad_edge=False, show_header=False)
    for label, text in _lines(outlook):
        table.add_row(label, Text(text))
    console.print(table)
    console.print()
    console.print(Text(_advice(outlook)), style="bold")


def _bars(rows: Rows) -> Table:
    bars = dropwhile(lambda bar: not bar["examples"], rows.histogram)
    named = (("more" if bar["up_to"] is None else f"≤ {bar['up_to']:,}", bar["examples"]) for bar in bars)
    return bar_table("rows", list(named))


def _lines(outlook: Outlook) -> Iterable[tuple[str, str]]:
    yield "rows", _rows(outlook.rows)
    for one in outlook.timed:
        yield "timed", f"{one['what']}: {one['tokens']:,} tokens in {one['seconds']:.2f} s"
    yield "time", _time(outlook)
    yield "", ", ".join(f"{name} {duration(part)}" for name, part in outlook.parts.items())
    yield "memory", _memory(outlook)
    yield "disk", _disk(outlook)
    if outlook.energy:
        yield "energy", _energy(outlook.energy)
    can = f"can't become GGUF: {outlook.gguf}" if outlook.gguf else "can become GGUF"
    yield "GGUF", f"this base {can}"
    if outlook.correction.get("runs"):
        yield "corrected", _corrected(outlook)
    for note in outlook.notes:
        yield "note", note
    for name, source in outlook.sources.items():
        yield "source", f"{name}: {source}"


def _rows(rows: Rows) -> str:
    tokens = f"{rows.tokens:,} tokens, the longest {rows.longest:,}"
    guessed = ", guessed from bytes" if rows.guessed else ""
    return f"{rows.train:,} to learn from, {rows.validation:,} held out; {tokens}{guessed}"


def _time(outlook: Outlook) -> str:
    span, now = outlook.seconds, datetime.now().astimezone()
    shape = "%H:%M" if span.high < 20 * 3600 else "%a %d %b %H:%M"
    low, likely, high = (
        (now + timedelta(seconds=each)).strftime(shape) for each in (span.low, span.likely, span.high)
    )
    takes = f"{duration(span.likely)} ({duration(span.low)} to {duration(span.high)})"
    how = f"for {outlook.steps:,} steps, {outlook.how} on {outlook.where}"
    return f"{takes} {how}; begun now, it ends at {likely} ({low} to {high})"


def _memory(outlook: Outlook) -> str:
    need, memory = outlook.memory.need, outlook.memory
    low, likely, high = (readable_bytes(round(each)) for each in (need.low, need.likely, need.high))
    headroom = f"{memory.headroom:.0%} stays free" if memory.headroom >= 0 else "it does NOT FIT"
    room = f"{readable_bytes(memory.room)} of {memory.what}"
    return f"{likely} at the peak ({low} to {high}) of {room}: {headroom}"


def _disk(outlook: Outlook) -> str:
    disk = outlook.disk
    checkpoints, adapter, merged, free = map(
        readable_bytes, (disk.checkpoints, disk.adapter, disk.merged, disk.free)
    )
    enough = "" if disk.fits else ": NOT ENOUGH"
    return f"checkpoints {checkpoints}, adapter {adapter}, merged model {merged}; {free} free{enough}"


def duration(seconds: float) -> str:
    """Write seconds for people: ``"2 h 05 min"``, ``"3 min 20 s"``, ``"7 s"``."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def _energy(energy: Mapping[str, Any]) -> str:
    text = f"{energy['kwh']:.3g} kWh at {energy['watts']:g} W"
    return text if energy["cost"] is None else f"{text}: {energy['cost']:.2f} {energy['currency']}".rstrip()


def _corrected(outlook: Outlook) -> str:
    known = outlook.correction
    moved = ", ".join(f"{what} by {known[name] - 1:+.0%}" for name, what in MOST_FACTORS.items())
    return f"by the last {known['runs']} runs of this kind on this machine: {moved}"


def _advice(outlook: Outlook) -> str:
    change = outlook.change
    if change is None:
        fits = outlook.memory.headroom >= 0 and outlook.disk.fits
        return (
            "Nothing that is known here would help much."
            if fits
            else "It does not fit, and no single change mends that."
        )
    return f"What would help most: {' '.join(change.overrides)}\n  {_gain(outlook, change)}"


def _gain(outlook: Outlook, change: Change) -> str:
    time, memory = outlook.seconds.likely - change.seconds, outlook.memory.need.likely - change.memory_bytes
    parts = [
        f"{duration(abs(time))} {'less' if time > 0 else 'more'}",
        f"{readable_bytes(round(abs(memory)))} of memory {'less' if memory > 0 else 'more'}",
    ]
    result = (
        "the same adapter, up to rounding" if change.same_result else "another adapter than this recipe's"
    )
    return f"{change.why}; {', '.join(parts)}; {result}"
