"""What a judge's verdicts owe to the order of showing and to length."""

import math
from collections.abc import Sequence
from typing import Any

from lora_kit.harness.judging.asking import Judgment
from lora_kit.harness.statistics.agreement import longer_wins, position_bias
from lora_kit.harness.statistics.matches import Duel


def duels_of(judgments: Sequence[Judgment]) -> list[Duel]:
    """Judgments of two answers as verdicts, in the order of showing; None where there is no ruling."""
    return [
        Duel(judgment.showing.prompt.id, *judgment.showing.players, _verdict(judgment))
        for judgment in judgments
        if len(judgment.showing.players) == 2
    ]


def bias_of(judgments: Sequence[Judgment], system: str) -> dict[str, Any]:
    """Consistency between orders, wins of a place, wins of the longer answer; NaN where there are none."""
    duels = duels_of(judgments)
    position = position_bias(duels)
    lengths = {
        (player, judgment.showing.prompt.id): len(answer)
        for judgment in judgments
        for player, answer in zip(judgment.showing.players, judgment.showing.answers, strict=True)
    }
    longer, decisive = longer_wins(duels, lambda player, item: lengths[player, item])
    both = position.both_parsed
    return {
        "pairs_in_both_orders": both,
        "consistent": _share(position.consistent, both),
        "first_in_both": _share(position.first_in_both, both),
        "second_in_both": _share(position.second_in_both, both),
        "kappa_between_orders": position.kappa if both else math.nan,
        "longer_wins": _share(longer, decisive),
        "decisive_with_unequal_length": decisive,
        "mean_length_of_system": mean([n for (player, _), n in lengths.items() if player == system]),
        "mean_length_of_other": mean([n for (player, _), n in lengths.items() if player != system]),
    }


def mean(values: Sequence[float]) -> float:
    """Mean, NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _verdict(judgment: Judgment) -> str | None:
    if judgment.ruling is None:
        return None
    first, second = judgment.ruling.scores
    return "tie" if first == second else ("a" if first > second else "b")
