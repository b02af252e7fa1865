"""Numbers and foreign text as people read them: as many digits as the interval supports, and never a crash.

Everything in a report comes from files, so a value may be missing, NaN or a text that
wants to drive a terminal or a browser; escaping is the templates' work, not done here.
"""

import math
from collections.abc import Sequence
from typing import Any

MISSING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_MOST_DECIMALS = 6
Facts = tuple[tuple[str, str], ...]
VERDICT_CSS = {"better": "good", "worse": "bad", "higher": "neutral", "lower": "neutral"}


def verdict_css(verdict: object) -> str:
    """The class of a verdict's badge; unclear for anything that is none."""
    return VERDICT_CSS.get(str(verdict), "unclear")


def finite(value: object) -> float | None:
    """The number, or None for anything that is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: object, decimals: int | None = None) -> str:
    """A number, with three significant digits or a given count of decimals; a dash if it is none.

    Example:
        >>> number(0.123456), number(26.71, 1), number(1234567), number(float("nan")) == MISSING
        ('0.123', '26.7', '1,234,567', True)
    """
    known = finite(value)
    if known is None:
        return MISSING
    if decimals is not None:
        text = f"{known:,.{decimals}f}"
    else:
        text = f"{known:,.0f}" if abs(known) >= 1000 or known == int(known) else f"{known:.3g}"
    return text.replace("-", _MINUS) if float(text.replace(",", "")) else text.lstrip("-")


def signed(value: object, decimals: int | None = None) -> str:
    """A difference, with its sign."""
    known = finite(value)
    text = number(value, decimals)
    return f"+{text}" if known is not None and known > 0 and text.strip("0.") else text


def nats(value: object) -> str:
    """A loss with its unit."""
    return MISSING if finite(value) is None else f"{number(value, 3)} nats per token"


def decimals_for(low: object, high: object) -> int | None:
    """Decimals that show two digits of an interval's width; None if it has none."""
    ends = finite(low), finite(high)
    width = 0.0 if ends[0] is None or ends[1] is None else abs(ends[1] - ends[0])
    return min(max(1 - math.floor(math.log10(width)), 0), _MOST_DECIMALS) if width > 0 else None


def p_value(value: object) -> str:
    """A p value; what 10,000 resamples can't tell from 0 is given as a bound."""
    known = finite(value)
    if known is None:
        return MISSING
    return "< 0.001" if known < 0.001 else f"{known:.2g}"


def duration(seconds: object) -> str:
    """Time in the two largest units.

    Example:
        >>> duration(3.21), duration(662), duration(3780)
        ('3.2 s', '11 min 02 s', '1 h 03 min')
    """
    known = finite(seconds)
    if known is None:
        return MISSING
    if known < 59.95:
        return f"{known:.1f} s"
    whole = round(known)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def size(amount_bytes: object) -> str:
    """Bytes in decimal units."""
    known = finite(amount_bytes)
    if known is None:
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if known >= scale:
            return f"{known / scale:.1f} {unit}"
    return f"{known:.0f} bytes"


def median(values: Sequence[float]) -> float | None:
    """The middle value, None of nothing."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return None
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def plain(value: object) -> str:
    """Foreign text, whole, with what is neither printable nor a line break or tab made visible."""
    text = MISSING if value is None else str(value)
    kept = (c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "".join(kept)


def excerpt(value: object, characters: int = 90) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(plain(value).split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


def mapping(value: object) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def stated(rows: Sequence[tuple[str, object]]) -> Facts:
    """Pairs of label and value as text, without those that say nothing."""
    return tuple((label, plain(value)) for label, value in rows if value not in (None, "", False))
