"""Rules that an answer either keeps or breaks: what it contains, matches, equals, counts or is shaped like.

For questions whose right answer a rule can see, where likeness to a reference can't tell 137 from 147.
A rule is read strictly and once, with the suite; an answer can't make one hang (patterns run under a
time limit, in any thread) and can't make one reach for the network (schemas refer to themselves only).
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import regex

from lora_kit.data.strict_json import kind_of
from lora_kit.errors import DataError
from lora_kit.harness.json_schema import open_schema
from lora_kit.registry import did_you_mean

PATTERN_SECONDS = 1.0  # a match takes microseconds; only catastrophic backtracking takes longer
LONGEST_PATTERN = 2000
# Thousands may be set off by commas. Possessive, so that no run of digits is read twice.
_NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?+(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?+(?:[eE][-+]?+\d++)?+"
)
_FENCED = re.compile(r"```[a-zA-Z]*+[ \t]*+\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Checked:
    """What one rule says of one answer.

    Args:
        type: Kind of rule.
        wanted: What it asks for, for people.
        passed: Whether the answer keeps it.
        reason: Why not; empty if it does.
    """

    type: str
    wanted: str
    passed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A rule.

    Args:
        spec: As in the file; what the suite's fingerprint covers.
        wanted: What it asks for, for people.
        fault: Why an answer breaks it, or ``""``.
    """

    spec: Mapping[str, Any]
    wanted: str
    fault: Callable[[str], str]

    def run(self, answer: str) -> Checked:
        """Hold the rule against an answer."""
        reason = self.fault(answer)
        return Checked(self.spec["type"], self.wanted, not reason, reason)


def read_checks(value: object, *, where: str) -> tuple[Check, ...]:
    """Read the ``checks`` of a prompt.

    Args:
        value: What the file has there.
        where: ``file:row``.

    Raises:
        DataError: Not a list of rules, or a rule that is wrong; the first of them is named.
    """
    if not isinstance(value, list) or not value:
        raise DataError(
            'must be a list such as [{"type": "contains", "value": "Paris"}]', where=where, key="checks"
        )
    return tuple(_read(one, where, f"checks[{at}]") for at, one in enumerate(value))


def _read(spec: object, where: str, key: str) -> Check:
    if not isinstance(spec, dict) or not isinstance(spec.get("type"), str):
        raise DataError('must be {"type", "value"}', where=where, key=key)
    kind = _KINDS.get(spec["type"])
    if kind is None:
        cure = did_you_mean(spec["type"], list(_KINDS)) or f"known: {', '.join(_KINDS)}"
        raise DataError(f"no check '{spec['type']}'", where=where, key=f"{key}.type", cure=cure)
    options, build = kind
    for name in spec:
        if name not in ("type", "value", *options):
            cure = (
                did_you_mean(name, ["value", *options]) or f"known: {', '.join(('type', 'value', *options))}"
            )
            raise DataError("unknown field", where=where, key=f"{key}.{name}", cure=cure)
    try:
        wanted, fault = build(spec)
    except _RefusedError as error:
        raise DataError(error.found, where=where, key=f"{key}.{error.name}", cure=error.cure) from None
    return Check(spec, wanted, fault)


class _RefusedError(ValueError):
    """A field of a rule that can't be used."""

    def __init__(self, name: str, found: str, cure: str = "") -> None:
        super().__init__(found)
        self.name, self.found, self.cure = name, found, cure


Built = tuple[str, Callable[[str], str]]


def _contains(spec: Mapping[str, Any]) -> Built:
    wanted = _text(spec)
    fold = _folding(spec)

    def fault(answer: str) -> str:
        return "" if fold(wanted) in fold(answer) else "it does not"

    return f"contains '{wanted}'", fault


def _exact(spec: Mapping[str, Any]) -> Built:
    value = spec.get("value")
    choices = [value] if isinstance(value, str) else value
    if (
        not isinstance(choices, list)
        or not choices
        or not all(isinstance(c, str) and c.strip() for c in choices)
    ):
        raise _RefusedError("value", "must be text, or a list of texts any of which is right")
    fold = _folding(spec)
    known = {fold(choice).strip() for choice in choices}

    def fault(answer: str) -> str:
        return "" if fold(answer).strip() in known else f"it is {_shown(answer)}"

    return "is " + " or ".join(f"'{choice}'" for choice in choices), fault


def _regex(spec: Mapping[str, Any]) -> Built:
    pattern = _text(spec)
    if len(pattern) > LONGEST_PATTERN:
        raise _RefusedError("value", f"a pattern of more than {LONGEST_PATTERN} characters")
    try:
        compiled = regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise _RefusedError("value", f"not a pattern: {error}") from None

    def fault(answer: str) -> str:
        return _pattern_fault(compiled, answer)

    return f"matches /{pattern}/", fault


def _pattern_fault(compiled: "regex.Pattern[str]", text: str) -> str:
    try:
        return "" if compiled.search(text, timeout=PATTERN_SECONDS) else "it does not"
    except TimeoutError:
        return f"the pattern took more than {PATTERN_SECONDS:g} s"


def _number(spec: Mapping[str, Any]) -> Built:
    wanted, tolerance = _finite(spec, "value", None), _finite(spec, "tolerance", 0.0)
    if tolerance < 0.0:
        raise _RefusedError("tolerance", f"must not be negative, got {tolerance:g}")
    take = spec.get("take", "last")
    if take not in ("last", "any"):
        raise _RefusedError("take", "must be last or any")

    def fault(answer: str) -> str:
        found = [_as_float(text) for text in _NUMBER.findall(answer)]
        asked = found[-1:] if take == "last" else found
        if any(abs(number - wanted) <= tolerance for number in asked):
            return ""
        return f"it has {', '.join(f'{number:g}' for number in asked[:5])}" if found else "it has no number"

    around = f" within {tolerance:g}" if tolerance else ""
    return f"{'has the number' if take == 'any' else 'the last number is'} {wanted:.12g}{around}", fault


def _json_schema(spec: Mapping[str, Any]) -> Built:
    try:
        fault_of = open_schema(spec.get("value"), pattern_seconds=PATTERN_SECONDS)
    except ValueError as error:
        raise _RefusedError("value", str(error)) from None

    def fault(answer: str) -> str:
        try:
            value = json.loads(_json_text(answer), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return "it is not JSON"
        return fault_of(value)

    return "is JSON of the given schema", fault


_KINDS: Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Built]]] = {
    "contains": (("ignore_case",), _contains),
    "exact": (("ignore_case",), _exact),
    "regex": ((), _regex),
    "number": (("tolerance", "take"), _number),
    "json_schema": ((), _json_schema),
}


def _text(spec: Mapping[str, Any]) -> str:
    value = spec.get("value")
    if not isinstance(value, str) or not value.strip():
        raise _RefusedError("value", f"must be text, found {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return "nothing" if value is None or value == "" else str(kind_of(value))


def _folding(spec: Mapping[str, Any]) -> Callable[[str], str]:
    """How texts are made alike before they are compared: runs of white space, and (by default) case."""
    ignores = spec.get("ignore_case", True)
    if not isinstance(ignores, bool):
        raise _RefusedError("ignore_case", "must be true or false")

    def fold(text: str) -> str:
        plain = re.sub(r"\s+", " ", text)
        return plain.casefold() if ignores else plain

    return fold


def _finite(spec: Mapping[str, Any], name: str, default: float | None) -> float:
    value = spec.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RefusedError(name, f"must be a number, found {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _RefusedError(name, "must be a finite number")
    return number


def _as_float(text: str) -> float:
    return float(text.replace(",", "").replace("\u2212", "-"))


def _json_text(answer: str) -> str:
    """The answer itself, or what is in its only fenced block."""
    fenced = _FENCED.findall(answer)
    return str(fenced[0]) if len(fenced) == 1 else answer


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _shown(answer: str) -> str:
    text = " ".join(answer.split())
    return f"'{text[:60]}{'...' if len(text) > 60 else ''}'" if text else "empty"
