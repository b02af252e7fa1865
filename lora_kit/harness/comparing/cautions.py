"""What has to be known before a ranking is believed."""

from collections.abc import Iterable, Sequence

import numpy as np

from lora_kit.harness.comparing.bouts import Bouts
from lora_kit.harness.comparing.tables import Tables
from lora_kit.harness.judging.kind import Prompt
from lora_kit.harness.judging.sides import Side
from lora_kit.harness.statistics.verdict import MIN_CLUSTERS


def cautions(tables: Tables, bouts: Bouts, sides: Sequence[Side], prompts: Sequence[Prompt]) -> list[str]:
    """All of them, as sentences.

    Args:
        tables: What the judgments say.
        bouts: The judgments.
        sides: The players.
        prompts: What they answered.
    """
    return [
        *_few(prompts),
        *_apart(tables, bouts),
        *_never_lost(tables, bouts),
        *_confounded(tables),
        *_silent(sides, prompts),
        *_equal(sides, prompts),
    ]


def _few(prompts: Sequence[Prompt]) -> Iterable[str]:
    clusters = len({prompt.cluster for prompt in prompts})
    if clusters < MIN_CLUSTERS:
        yield f"{clusters} independent prompts are too few for any verdict; {MIN_CLUSTERS} are the least"


def _apart(tables: Tables, bouts: Bouts) -> Iterable[str]:
    """Ratings of players who never met, not even through others, don't compare."""
    groups: list[set[int]] = []
    for pair in zip(bouts.first.tolist(), bouts.second.tolist(), strict=True):
        joined = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in joined] + [set(pair).union(*joined)]
    if len(groups) > 1:
        named = "; ".join(", ".join(tables.players[at] for at in sorted(group)) for group in groups)
        yield f"nothing judged connects these groups, so their ratings don't compare: {named}"
    for at, rate in enumerate(tables.rates):
        if rate is None:
            yield f"nothing was judged of {tables.players[at]}"


def _never_lost(tables: Tables, bouts: Bouts) -> Iterable[str]:
    for at in tables.order:
        points = np.concatenate([bouts.share[bouts.first == at], 1.0 - bouts.share[bouts.second == at]])
        if points.min() == 1.0 or points.max() == 0.0:
            always = "won" if points.min() == 1.0 else "lost"
            name = tables.players[at]
            yield f"{name} {always} every judgment: how far it is from the others can't be measured by them"


def _confounded(tables: Tables) -> Iterable[str]:
    for a, b in map(sorted, tables.length.one_sided if tables.length else ()):
        both = f"{tables.players[a]} and {tables.players[b]}"
        yield f"of {both} nearly always the same is longer: what length does there is known from other pairs"


def _silent(sides: Sequence[Side], prompts: Sequence[Prompt]) -> Iterable[str]:
    for side in sides:
        texts = [side.answers[prompt.id].strip() for prompt in prompts]
        empty = sum(not text for text in texts)
        if empty:
            yield f"{side.name} gave {empty} empty answers of {len(texts)}"
        elif len(texts) > 1 and len(set(texts)) == 1:
            yield f"{side.name} gave the same answer to all {len(texts)} prompts"


def _equal(sides: Sequence[Side], prompts: Sequence[Prompt]) -> Iterable[str]:
    for at, side in enumerate(sides):
        for other in sides[at + 1 :]:
            if all(side.answers[prompt.id] == other.answers[prompt.id] for prompt in prompts):
                yield f"{side.name} and {other.name} gave the same answers to all prompts"
