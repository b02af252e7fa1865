"""Judgments of many pairs as arrays, each with its prompt, its weight and both lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lora_kit.harness.judging.asking import Judgment
from lora_kit.harness.judging.kind import JudgeKind
from lora_kit.harness.judging.summary import share_of
from lora_kit.harness.statistics.bootstrap import Floats
from lora_kit.harness.statistics.matches import Ints, Matches


@dataclass(frozen=True)
class Bouts:
    """What was judged; n judgments, M players.

    Args:
        players: M names.
        first: Int64 ``(n,)``, index of the one shown first.
        second: Int64 ``(n,)``.
        share: Float64 ``(n,)``, 0..1, how far the ruling is for the first.
        weight: Float64 ``(n,)``, how often it counts.
        items: n ids of prompts.
        clusters: n names; judgments of one cluster are not independent.
        lengths: Float64 ``(n, 2)``, characters of both answers.
    """

    players: tuple[str, ...]
    first: Ints
    second: Ints
    share: Floats
    weight: Floats
    items: tuple[str, ...]
    clusters: tuple[str, ...]
    lengths: Floats

    @cached_property
    def cluster_numbers(self) -> Ints:
        """Int64 ``(n,)``, in order of first appearance."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(self.clusters))}
        return np.array([numbers[name] for name in self.clusters], dtype=np.int64)

    @property
    def cluster_count(self) -> int:
        """Number of clusters, C."""
        return len(set(self.clusters))

    def matches(self) -> Matches:
        """For ratings: the unit that is resampled is the cluster, and a clear verdict is several matches."""
        times = np.maximum(1, np.rint(self.weight)).astype(np.int64)
        at = np.repeat(np.arange(len(times)), times)
        names = tuple(self.clusters[index] for index in at)
        return Matches(self.players, self.first[at], self.second[at], self.share[at], names)


def bouts_of(kind: JudgeKind, judgments: Sequence[Judgment], players: Sequence[str]) -> Bouts:
    """Keep what has a ruling; what has none is no tie and no loss.

    Args:
        kind: Of the judgments; it shows two answers.
        judgments: Judged or not.
        players: All, also those of whom nothing was judged.
    """
    number = {name: at for at, name in enumerate(players)}
    judged = [judgment for judgment in judgments if judgment.ruling is not None]
    shown = [judgment.showing for judgment in judged]
    rulings = [share_of(kind, judgment, judgment.showing.players[0]) for judgment in judged]
    lengths = [[len(answer) for answer in one.answers] for one in shown]
    return Bouts(
        players=tuple(players),
        first=np.array([number[one.players[0]] for one in shown], dtype=np.int64),
        second=np.array([number[one.players[1]] for one in shown], dtype=np.int64),
        share=np.array([share for share, _ in rulings], dtype=np.float64),
        weight=np.array([weight for _, weight in rulings], dtype=np.float64),
        items=tuple(one.prompt.id for one in shown),
        clusters=tuple(one.prompt.cluster for one in shown),
        lengths=np.array(lengths, dtype=np.float64).reshape(-1, 2),
    )
