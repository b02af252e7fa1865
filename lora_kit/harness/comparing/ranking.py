"""One ranking from one journal: ``ranking`` in results.json, finite JSON data, None where there is no number.

Rates and differences of rates are in per cent; ``low`` and ``high`` end 95 % intervals over prompts.

::

    suite, prompts, clusters, kind, title, judge {model, host}, settings, orders ("both" | "one"),
    prompt_hash, baseline (name | None), date, lora_kit, seed, confidence
    players [ best rating first, None for the numbers of one of whom nothing was judged:
        name, source
        rank, best_rank, worst_rank        by rating; 1 + players surely better; players - surely worse
        bradley_terry {rating, low, high}  mean of all 1000, 400 points are odds of 10 to 1
        elo {mean, sd, low, high, error_of_mean}        QLoRA's; spread over orders of matches only
        win_rate {value, low, high, n, standard_error}  against all whom it met, ties half; n prompts
        length_controlled {value, low, high, standard_error}  the same if all answers were equally long
        record {win, tie, loss}, unjudged, mean_length (characters), empty (answers) ]
    pairs [ of which something was judged, ``a`` has the higher rating:
        a, b, win_rate {value, low, high, n}  of a
        difference, low, high, p              of a's win rate to 50, of this pair alone
        p_holm, verdict ("better" | "worse" | "can't tell"), smallest_visible, more_items_needed
                                              of this pair among all; both numbers may be None
        length_controlled {value, low, high, standard_error}
        record {win, tie, loss} of a, unjudged, bias {like the one below} ]
    bias {pairs_in_both_orders, consistent, first_in_both, second_in_both, kappa_between_orders, longer_wins,
        decisive_with_unequal_length, first_wins, second_wins, ties (shares of all judgments),
        taste_for_length {value, low, high} | None  log-odds for the longer at equal quality }
    tests (pairs that share the 5 %), smallest_visible (the largest over pairs) | None
    cautions [ sentences that a reader has to know before believing a number ]
    planned, judged, share_judged, unparsed, errors, asked_again [ {item, shown, reason, reply?} ], layers,
    answered_by, injections, flags, asked, spent, estimate    as in ``judgments``
    verdicts, items, answers    as in ``judgments``; the texts are in ``items`` of results.json
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lora_kit.harness.comparing.bouts import bouts_of
from lora_kit.harness.comparing.cautions import cautions
from lora_kit.harness.comparing.pair_table import PairOutcome
from lora_kit.harness.comparing.tables import SEED, Tables, tables_of
from lora_kit.harness.judging.asking import Judgment
from lora_kit.harness.judging.bias import bias_of, duels_of, mean
from lora_kit.harness.judging.kind import JudgeKind, Prompt
from lora_kit.harness.judging.sides import Side
from lora_kit.harness.judging.summary import finite, share_of
from lora_kit.harness.statistics.bootstrap import CONFIDENCE

LENGTHS_OF_TWO = ("mean_length_of_system", "mean_length_of_other")
SHOWN = {"first_wins": "a", "second_wins": "b", "ties": "tie"}


class Ranking:
    """What follows from judgments.

    Args:
        kind: Of the judgments; it shows two answers.
        judgments: Of all pairs, judged or not.
        sides: The players.
        prompts: What they answered.
        pairs: Indices of sides that were to be compared, each pair once.
    """

    def __init__(
        self,
        kind: JudgeKind,
        judgments: Sequence[Judgment],
        sides: Sequence[Side],
        prompts: Sequence[Prompt],
        pairs: Sequence[tuple[int, int]],
    ) -> None:
        self._kind = kind
        self._judgments = judgments
        self._sides = sides
        self._prompts = prompts
        self._pairs = pairs
        self._names = [side.name for side in sides]

    def to_json(self) -> dict[str, Any]:
        """Players, pairs, bias, and what a reader has to be told (``cautions``)."""
        bouts = bouts_of(self._kind, self._judgments, self._names)
        tables = tables_of(bouts, self._pairs)
        visible = [pair.difference.smallest_visible for pair in tables.pairs.values()]
        section: dict[str, Any] = finite(
            {
                "players": [self._player(at, tables) for at in self._all_players(tables)],
                "pairs": [self._pair(outcome, tables) for outcome in tables.pairs.values()],
                "bias": {**_bias(self._judgments), "taste_for_length": _taste(tables)},
                "tests": len(self._pairs),
                "smallest_visible": max((size for size in visible if size is not None), default=None),
                "cautions": cautions(tables, bouts, self._sides, self._prompts),
                "seed": SEED,
                "confidence": CONFIDENCE,
            }
        )
        return section

    def _all_players(self, tables: Tables) -> list[int]:
        """In order of rating; whoever was not judged comes last."""
        return [*tables.order, *(at for at in range(len(self._sides)) if at not in tables.order)]

    def _player(self, at: int, tables: Tables) -> dict[str, Any]:
        name, rate = self._names[at], tables.rates[at]
        about = self._about_player(at)
        if rate is None:
            scores = ("rank", "best_rank", "worst_rank", "bradley_terry", "elo", "win_rate")
            return {"name": name, **dict.fromkeys((*scores, "length_controlled")), **about}
        best, worst = tables.ranks(at)
        return {
            "name": name,
            "rank": 1 + tables.order.index(at),
            "best_rank": best,
            "worst_rank": worst,
            "bradley_terry": asdict(tables.bradley_terry[name]),
            "elo": asdict(tables.elo[name]),
            "win_rate": asdict(rate),
            "length_controlled": asdict(tables.length.players[at]) if tables.length else None,
            **about,
        }

    def _about_player(self, at: int) -> dict[str, Any]:
        side = self._sides[at]
        texts = [side.answers[prompt.id] for prompt in self._prompts]
        mine = [judgment for judgment in self._judgments if side.name in judgment.showing.players]
        return {
            "source": side.where or side.name,
            **self._record(mine, side.name),
            "mean_length": mean([len(text) for text in texts]),
            "empty": sum(not text.strip() for text in texts),
        }

    def _pair(self, outcome: PairOutcome, tables: Tables) -> dict[str, Any]:
        a, b = self._names[outcome.a], self._names[outcome.b]
        mine = [judgment for judgment in self._judgments if set(judgment.showing.players) == {a, b}]
        length = tables.length.pairs[outcome.a, outcome.b] if tables.length else None
        return {
            "a": a,
            "b": b,
            "win_rate": asdict(outcome.win_rate),
            **asdict(outcome.difference),
            "p_holm": outcome.p_holm,
            "length_controlled": asdict(length) if length else None,
            **self._record(mine, a),
            "bias": _bias(mine),
        }

    def _record(self, judgments: Sequence[Judgment], name: str) -> dict[str, Any]:
        shares = [share_of(self._kind, judgment, name)[0] for judgment in judgments if judgment.ruling]
        record = {
            "win": sum(share > 0.5 for share in shares),
            "tie": sum(share == 0.5 for share in shares),
            "loss": sum(share < 0.5 for share in shares),
        }
        return {"record": record, "unjudged": len(judgments) - len(shares)}


def _bias(judgments: Sequence[Judgment]) -> dict[str, Any]:
    """Of place and length, whoever the players are."""
    found = {name: value for name, value in bias_of(judgments, "").items() if name not in LENGTHS_OF_TWO}
    verdicts = Counter(duel.verdict for duel in duels_of(judgments) if duel.verdict)
    total = verdicts.total()
    shares = {word: verdicts[verdict] / total if total else math.nan for word, verdict in SHOWN.items()}
    return {**found, **shares}


def _taste(tables: Tables) -> dict[str, float] | None:
    if tables.length is None:
        return None
    return {"value": tables.length.taste, "low": tables.length.taste_low, "high": tables.length.taste_high}
