"""One prompt with every model's answer, side by side, and which way its reference's likelihood moved."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_kit.report.wording import excerpt, finite, mapping, number, plain, signed


@dataclass(frozen=True, slots=True)
class AnswerView:
    """One model's answer: its text, and figures about it in one line."""

    model: str
    text: str
    figures: str


@dataclass(frozen=True, slots=True)
class ItemView:
    """A prompt with the reference and all answers; ``trend`` is better, worse or empty."""

    id: str
    category: str
    head: str
    prompt: str
    reference: str
    answers: tuple[AnswerView, ...]
    trend: str
    change: str


def item_view(item: Mapping[str, Any], models: Sequence[str]) -> ItemView:
    """Read one item of results.json.

    Args:
        item: The item.
        models: Names in the order of columns, the baseline first.

    Raises:
        KeyError, TypeError, AttributeError: It is not what the harness writes.
    """
    answers = [(model, item["answers"][model]) for model in models if model in item["answers"]]
    change = _bits(answers[-1][1]) - _bits(answers[0][1]) if len(answers) > 1 else math.nan
    return ItemView(
        id=plain(item["id"]),
        category=plain(item["category"]),
        head=excerpt(item["prompt"]),
        prompt=plain(item["prompt"]),
        reference=plain(item["reference"]),
        answers=tuple(
            AnswerView(plain(model), plain(answer["text"]), _about(answer)) for model, answer in answers
        ),
        trend="" if math.isnan(change) or change == 0 else "better" if change < 0 else "worse",
        change="" if math.isnan(change) else f"{signed(change, 2)} bits per byte",
    )


def _bits(answer: Mapping[str, Any]) -> float:
    """Bits per byte of the reference, NaN if it was not measured."""
    nats, length = finite(answer.get("nats")), finite(answer.get("bytes"))
    return math.nan if nats is None or not length else nats / math.log(2) / length


def _about(answer: Mapping[str, Any]) -> str:
    bits = _bits(answer)
    scores = [f"{plain(name)} {number(score, 1)}" for name, score in mapping(answer.get("scores")).items()]
    end = "ended by itself" if answer.get("stopped") else "cut at the limit"
    likely = [] if math.isnan(bits) else [f"reference {number(bits, 2)} bits per byte"]
    return ", ".join([f"{number(answer.get('tokens'))} tokens", end, *likely, *scores])
