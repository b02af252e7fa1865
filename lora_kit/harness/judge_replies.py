"""What a judge said, read out of its reply; what can't be read is None, never a default score.

Each protocol has layers: first the form that the prompt asks for, then forms that
judges fall into. The first layer that finds something decides; one that finds two
different verdicts decides that there is none. The layer is kept beside the verdict.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lora_kit.harness.judge_json import json_pair, json_score, json_winner

LOWEST, HIGHEST = 0.0, 10.0  # asked for 1 to 10, judges give 0 to an empty answer, and mean it
NUMBER = r"(\d+(?:\.\d+)?)"
TAIL_LINES = 3
CHOICES = {"1": "a", "2": "b", "3": "tie"}


@dataclass(frozen=True, slots=True)
class Reading:
    """A verdict out of a reply.

    Args:
        value: Two scores, one score, or ``a`` / ``b`` / ``tie``, in the order of showing; None if the reply
            can't be read.
        layer: How it was found; empty if it was not.
    """

    value: tuple[float, float] | float | str | None
    layer: str = ""


Finder = Callable[[str], list[tuple[float, float]] | list[float] | list[str]]
UNREAD = Reading(None)


def read_reply(protocol: str, reply: str) -> Reading:
    r"""Read a reply.

    Args:
        protocol: ``pair-score-1-10`` (Vicuna), ``pairwise-3class`` (QLoRA), ``pairwise-[[A]]`` or
            ``single-1-10`` (both MT-bench).
        reply: All that the judge said.

    Raises:
        KeyError: There is no such protocol.

    Example:
        >>> read_reply("pair-score-1-10", "9 7.5\nAssistant 1 ...")
        Reading(value=(9.0, 7.5), layer='first line')
        >>> read_reply("pairwise-3class", "They differ in depth.\n\nBest answer: 2")
        Reading(value='b', layer='sentence')
        >>> read_reply("single-1-10", "I can't rate this.")
        Reading(value=None, layer='')
    """
    for layer, find in LAYERS[protocol]:
        found = find(reply)
        if found:
            return Reading(found[0], layer) if len(set(found)) == 1 else UNREAD
    return UNREAD


def strict_pair(reply: str) -> tuple[float, float] | None:
    """Vicuna's and QLoRA's own rule: the first line is two numbers."""
    found = _first_line(reply)
    return found[0] if found else None


def _first_line(reply: str) -> list[tuple[float, float]]:
    words = reply.strip().partition("\n")[0].replace(",", " ").split()
    if len(words) != 2 or not all(re.fullmatch(NUMBER, word) for word in words):
        return []
    return _in_range([(float(words[0]), float(words[1]))])


def _tagged_pair(reply: str) -> list[tuple[float, float]]:
    return _in_range(_pairs(re.findall(rf"\[\[{NUMBER}\s*,\s*{NUMBER}\]\]", _tail(reply))))


def _tuple_at_end(reply: str) -> list[tuple[float, float]]:
    """``(10, 2)`` alone on a late line, or called output or scores; any other may be a point in a plane."""
    tail = _tail(reply)
    pair = rf"\(\s*{NUMBER}\s*,\s*{NUMBER}\s*\)"
    alone = re.findall(rf"^{pair}\.?$", tail, re.MULTILINE)
    named = re.findall(rf"\b(?:output|tuple|scores?|ratings?)\b[^()\n]{{0,20}}{pair}", tail, re.IGNORECASE)
    return _in_range(_pairs([*alone, *named]))


def _labelled_scores(reply: str) -> list[tuple[float, float]]:
    """The last ``Assistant 1: 8`` and the last ``Assistant 2: 9``, or the last sentence that gives both."""
    sentence = rf"Assistant 1 a score of {NUMBER}\b.*?\bAssistant 2 a score of {NUMBER}"
    if spoken := re.findall(sentence, reply):
        return _in_range(_pairs(spoken[-1:]))
    label = (
        r"^\W*(?:Scores?:\s*)?Assistant {}\b[^:\n\d]{{0,20}}:\s*" + NUMBER + r"(?:\s*/\s*10)?(?=[\s,.;(]|$)"
    )
    first = re.findall(label.format(1), reply, re.MULTILINE)
    second = re.findall(label.format(2), reply.replace(", Assistant 2:", "\nAssistant 2:"), re.MULTILINE)
    return _in_range(_pairs([(first[-1], second[-1])])) if first and second else []


def _last_line_number(reply: str) -> list[str]:
    lines = _lines(reply)
    last = lines[-1] if lines else ""
    return [CHOICES[last]] if last in CHOICES else []


_SENTENCES = (
    r"\bbest (?:answer|response)\b[^.\n]{0,60}?\b(?:assistant )?([123])\b(?!\s*/)",
    r"\bI (?:would )?choose (?:the )?(?:answer|response) (?:of|from|by|provided by) assistant ([12])\b",
    r"\bI (?:would )?choose (?:assistant |option |answer |number )?([123])\b",
    r"\bassistant ([12])(?:'s)? (?:answer |response )?(?:as|is) (?:the )?best (?:answer|response)\b",
)


def _sentence(reply: str) -> list[str]:
    """A verdict in words, in the last lines; every such sentence counts."""
    tail = _tail(reply)
    numbers = [number for pattern in _SENTENCES for number in re.findall(pattern, tail, re.IGNORECASE)]
    return [CHOICES[number] for number in numbers]


def _tagged_choice(reply: str) -> list[str]:
    """``[[A]]``, ``[[B]]``, ``[[C]]``, or the number of the choice in the same brackets."""
    tail = _tail(reply)  # earlier, it may be quoted from an answer
    numbers = [CHOICES[number] for number in re.findall(r"\[\[([123])\]\]", tail)]
    return [*_bracketed_letter(tail), *numbers]


def _bracketed_letter(reply: str) -> list[str]:
    return [{"A": "a", "B": "b", "C": "tie"}[letter] for letter in re.findall(r"\[\[([ABC])\]\]", reply)]


def _double_bracketed(reply: str) -> list[float]:
    return _scores(re.findall(rf"\[\[{NUMBER}\]\]", reply))


def _bracketed(reply: str) -> list[float]:
    return _scores(re.findall(rf"\[{NUMBER}\]", reply))


def _tail(reply: str) -> str:
    return "\n".join(_lines(reply)[-TAIL_LINES:])


def _lines(reply: str) -> list[str]:
    return [line.strip() for line in reply.splitlines() if line.strip()]


def _pairs(found: Iterable[Sequence[str]]) -> list[tuple[float, float]]:
    return [(float(first), float(second)) for first, second in found]


def _in_range(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [pair for pair in pairs if all(LOWEST <= score <= HIGHEST for score in pair)]


def _scores(found: list[str]) -> list[float]:
    return [float(score) for score in found if LOWEST <= float(score) <= HIGHEST]


def _json_pair(reply: str) -> list[tuple[float, float]]:
    return _in_range(json_pair(reply))


def _json_score(reply: str) -> list[float]:
    return [score for score in json_score(reply) if LOWEST <= score <= HIGHEST]


LAYERS: dict[str, tuple[tuple[str, Finder], ...]] = {
    "pair-score-1-10": (
        ("first line", _first_line),
        ("json", _json_pair),
        ("tagged", _tagged_pair),
        ("tuple at the end", _tuple_at_end),
        ("labelled scores", _labelled_scores),
    ),
    "pairwise-3class": (
        ("last line", _last_line_number),
        ("json", json_winner),
        ("tagged", _tagged_choice),
        ("sentence", _sentence),
    ),
    "pairwise-[[A]]": (("tagged", _bracketed_letter),),
    "single-1-10": (("tagged", _double_bracketed), ("single bracket", _bracketed), ("json", _json_score)),
}
