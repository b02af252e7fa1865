"""From judgments to numbers: % of the other's sum, win rate, grades, each with its interval over prompts.

What was not judged is in no sum. Both orders of a prompt are resampled together, so the
interval is about other prompts, not about asking again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lora_kit.harness.judging.asking import Judgment
from lora_kit.harness.judging.bias import bias_of, duels_of, mean
from lora_kit.harness.judging.kind import JudgeKind
from lora_kit.harness.statistics.agreement import reconciled
from lora_kit.harness.statistics.bootstrap import cluster_sums, resample_sums
from lora_kit.harness.statistics.relative_score import OrderScore, PairScore, relative_score
from lora_kit.harness.statistics.verdict import difference_of_ratios, estimate

SAMPLES, SEED = 10_000, 0
FAIR = 50.0  # per cent: neither wins more often
Cell = tuple[str, float, float, float, float]  # cluster, numerator and denominator of system and of other


def summarise(kind: JudgeKind, judgments: Sequence[Judgment], system: str, against: str) -> dict[str, Any]:
    """The numbers of one kind of judgment, as finite JSON data (None where there is no number).

    Args:
        kind: How it was judged.
        judgments: All, judged or not.
        system: Who is judged.
        against: With whom it is compared.
    """
    judged = [judgment for judgment in judgments if judgment.ruling is not None]
    found: dict[str, Any] = {}
    if kind.summary == "scores":
        found["grades"] = _grades(judged, system, against)
    if kind.summary == "relative":
        found["relative"] = _relative(judged, against)
    if kind.shown == 2:
        found["preference"] = _preference(kind, judged, system)
        found["bias"] = bias_of(judged, system)
    section: dict[str, Any] = finite(found)
    return section


def share_of(kind: JudgeKind, judgment: Judgment, system: str) -> tuple[float, float]:
    """How far a ruling is for the system (0..1; of two scores the higher takes all), and its weight."""
    assert judgment.ruling is not None
    place = judgment.showing.players.index(system)
    mine, other = judgment.ruling.scores[place], judgment.ruling.scores[1 - place]
    if kind.summary == "preference":
        return mine, judgment.ruling.weight
    return (0.5 if mine == other else float(mine > other)), judgment.ruling.weight


def _relative(judged: Sequence[Judgment], against: str) -> dict[str, Any]:
    """Vicuna's per cent of the reference: in each order, the mean of both, pooled with its interval."""
    pairs = [_pair_score(judgment, against) for judgment in judged]
    found = relative_score(pairs)
    cells: list[Cell] = []
    for judgment, pair in zip(judged, pairs, strict=True):
        system, reference = pair.system or 0.0, pair.reference or 0.0
        cluster = judgment.showing.prompt.cluster
        cells.append((cluster, 100.0 * system, reference, 100.0 * reference, reference))
    return {
        "reference_first": _order(found.ref_first),
        "system_first": _order(found.sys_first),
        "mean_of_orders": found.mean_of_orders,
        "pooled": found.pooled,
        **_with_interval(cells),
    }


def _pair_score(judgment: Judgment, against: str) -> PairScore:
    assert judgment.ruling is not None
    reference_first = judgment.showing.players[0] == against
    first, second = judgment.ruling.scores
    system, reference = (second, first) if reference_first else (first, second)
    return PairScore(system, reference, reference_first)


def _order(score: OrderScore) -> dict[str, Any]:
    return {**asdict(score), "pct": score.pct}


def _preference(kind: JudgeKind, judged: Sequence[Judgment], system: str) -> dict[str, Any]:
    """Win rate in per cent: a tie counts half for each, a clear verdict as often as its kind says."""
    cells: list[Cell] = []
    counts = {"win": 0, "tie": 0, "loss": 0}
    for judgment in judged:
        share, weight = share_of(kind, judgment, system)
        cluster = judgment.showing.prompt.cluster
        cells.append((cluster, 100.0 * weight * share, weight, FAIR * weight, weight))
        counts["win" if share > 0.5 else "tie" if share == 0.5 else "loss"] += 1
    records = reconciled(duels_of(judged))
    both = asdict(records[system]) if system in records else None
    return {**counts, "both_orders_agree": both, **_with_interval(cells)}


def _grades(judged: Sequence[Judgment], system: str, against: str) -> dict[str, Any]:
    """Mean grades of all, and of the prompts where both have one, the difference."""
    scores = {name: _scores_of(judged, name) for name in (system, against)}
    means = {name: mean([s for many in found.values() for s in many]) for name, found in scores.items()}
    cells: list[Cell] = []
    for cluster in scores[system].keys() & scores[against].keys():
        mine, other = scores[system][cluster], scores[against][cluster]
        cells.append((cluster, sum(mine), len(mine), sum(other), len(other)))
    return {"system": means[system], "against": means[against], **_with_interval(sorted(cells))}


def _scores_of(judged: Sequence[Judgment], player: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for judgment in judged:
        if judgment.ruling is not None and judgment.showing.players == (player,):
            found.setdefault(judgment.showing.prompt.cluster, []).append(judgment.ruling.scores[0])
    return found


def _with_interval(cells: Sequence[Cell]) -> dict[str, Any]:
    """Ratio of the system's sums with its interval, and its difference to the ratio of the other's."""
    if not cells:
        return {"estimate": None, "difference": None}
    columns = np.array([cell[1:] for cell in cells], dtype=np.float64)
    sums = cluster_sums(columns, [cell[0] for cell in cells])
    draws = resample_sums(sums, samples=SAMPLES, seed=SEED)
    model, other = (sums[:, :2], draws[:, :2]), (sums[:, 2:], draws[:, 2:])
    if not (draws[:, 1].all() and draws[:, 3].all()):
        return {"estimate": None, "difference": None}  # a yardstick that got no points measures nothing
    outcome = difference_of_ratios(model, other, higher_is_better=True, items=len(sums))
    return {"estimate": asdict(estimate(*model, items=len(sums))), "difference": asdict(outcome)}


def finite(value: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON data with None for every number that is not finite."""
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
