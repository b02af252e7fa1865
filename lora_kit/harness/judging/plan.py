"""Which answers are shown to the judge, beside which, and in which order."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from lora_kit.errors import DataError, Problem
from lora_kit.harness.judging.kind import JudgeKind, Prompt, Showing

Orders = Literal["both", "one"]
SHOWN_PROBLEMS = 20


def plan_showings(
    kind: JudgeKind,
    prompts: Sequence[Prompt],
    players: tuple[str, str],
    answers: tuple[Mapping[str, str], Mapping[str, str]],
    *,
    orders: Orders = "both",
) -> list[Showing]:
    """List the showings of two systems.

    Args:
        kind: Shows one answer or two.
        prompts: In order.
        players: Names of the two systems.
        answers: Their answers by prompt id.
        orders: ``both``: each pair is shown twice, swapped; ``one``: once, in an order that a hash of prompt
            and names decides.

    Returns:
        Each system alone for a kind that shows one answer, else the pairs. The suite's references are not
        shown beside themselves.

    Raises:
        DataError: The kind shows the suite's reference and a prompt has none.
    """
    if kind.needs_gold:
        _require_gold(kind, prompts)
    showings = []
    for prompt in prompts:
        sides = [(name, found[prompt.id]) for name, found in zip(players, answers, strict=True)]
        if kind.shown == 1:
            shown = [side for side in sides if not (kind.needs_gold and side[1] == prompt.gold)]
            showings += [Showing(prompt, (name,), (text,)) for name, text in shown]
            continue
        there = Showing(prompt, *zip(*sides, strict=True))
        back = Showing(prompt, *zip(*sides[::-1], strict=True))
        if orders == "both":
            showings += [back, there]
        else:
            showings.append(back if _is_swapped(prompt, players) else there)
    return showings


def _is_swapped(prompt: Prompt, players: tuple[str, str]) -> bool:
    text = "\0".join((prompt.id, prompt.question, *players))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()[0] % 2 == 1


def _require_gold(kind: JudgeKind, prompts: Sequence[Prompt]) -> None:
    missing = [prompt.id for prompt in prompts if not prompt.gold.strip()]
    if missing:
        cure = "pass a --suite with references, or use another --kind"
        found = f"'{kind.name}' shows the suite's reference and this prompt has none"
        problems = [Problem(found, key=name, cure=cure) for name in missing]
        raise DataError.collect(problems[:SHOWN_PROBLEMS])
