"""All numbers behind a ranking, from the same judgments: ratings, win rates, pairs, lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_kit.harness.comparing.bouts import Bouts
from lora_kit.harness.comparing.length_table import LengthTable, length_table
from lora_kit.harness.comparing.pair_table import PairOutcome, pair_outcomes
from lora_kit.harness.comparing.player_table import PlayerRate, player_rates
from lora_kit.harness.statistics.bradley_terry import BradleyTerryRating, bradley_terry
from lora_kit.harness.statistics.elo import EloRating, EloRules, elo_ratings

SAMPLES, RATING_SAMPLES, SEED = 10_000, 1_000, 0
PRIOR_TIES = 1.0
ELO_ORDERS, ELO_LEAST, ELO_MATCHES = 10_000, 1_000, 4_000_000  # fewer orders where there are many matches
BETTER, WORSE = "better", "worse"


@dataclass(frozen=True)
class Tables:
    """What the judgments say; indices are those of ``players``.

    Args:
        players: Names.
        order: Players of whom something was judged, best rating first.
        bradley_terry: By name; empty if nothing was judged.
        elo: By name.
        rates: By index; None if nothing was judged.
        pairs: The better rated first.
        length: None if nothing was judged.
    """

    players: tuple[str, ...]
    order: tuple[int, ...]
    bradley_terry: Mapping[str, BradleyTerryRating]
    elo: Mapping[str, EloRating]
    rates: Sequence[PlayerRate | None]
    pairs: Mapping[tuple[int, int], PairOutcome]
    length: LengthTable | None

    def ranks(self, player: int) -> tuple[int, int]:
        """Best and worst place that the verdicts leave open."""
        above = sum(self._beats(pair, other=player) for pair in self.pairs)
        below = sum(self._beats(pair, winner=player) for pair in self.pairs)
        return 1 + above, len(self.order) - below

    def _beats(self, pair: tuple[int, int], *, winner: int | None = None, other: int | None = None) -> bool:
        verdict = self.pairs[pair].difference.verdict
        won = {BETTER: pair, WORSE: pair[::-1]}.get(verdict)
        return won is not None and (won[0] == winner or won[1] == other)


def tables_of(bouts: Bouts, pairs: Sequence[tuple[int, int]]) -> Tables:
    """Compute everything; the same judgments give the same numbers.

    Args:
        bouts: What was judged.
        pairs: Indices of players that were to be compared, each pair once.
    """
    if not len(bouts.share):
        return Tables(bouts.players, (), {}, {}, [None] * len(bouts.players), {}, None)
    matches = bouts.matches()
    ratings = bradley_terry(matches, samples=RATING_SAMPLES, seed=SEED, prior_ties=PRIOR_TIES)
    rates = player_rates(bouts, samples=SAMPLES, seed=SEED)
    met = [at for at, rate in enumerate(rates) if rate is not None]
    order = tuple(sorted(met, key=lambda at: (-ratings[bouts.players[at]].rating, at)))
    place = {player: at for at, player in enumerate(order)}
    known = [pair for pair in pairs if place.keys() >= set(pair)]
    best_first = [(a, b) if place[a] < place[b] else (b, a) for a, b in known]
    outcomes = pair_outcomes(bouts, best_first, samples=SAMPLES, seed=SEED)
    return Tables(
        bouts.players,
        order,
        ratings,
        elo_ratings(matches, EloRules(orders=_elo_orders(len(matches.points)), seed=SEED)),
        rates,
        outcomes,
        length_table(bouts, list(outcomes), seed=SEED),
    )


def _elo_orders(matches: int) -> int:
    return min(ELO_ORDERS, max(ELO_LEAST, ELO_MATCHES // matches))
