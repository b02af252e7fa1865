"""QLoRA's pairwise tournament: records, position and length bias, Bradley-Terry and Elo."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lora_kit.harness.published.case import CLOSE, Case, Check, MissingInputError, compare
from lora_kit.harness.statistics.agreement import head_to_head, longer_wins, position_bias, reconciled
from lora_kit.harness.statistics.bradley_terry import bradley_terry
from lora_kit.harness.statistics.elo import EloRules, elo_ratings
from lora_kit.harness.statistics.matches import Duel, matches_of


def check_tournament(case: Case) -> list[Check]:
    """Everything that the manifest says about the verdicts."""
    duels = [Duel(row["item_id"], row["a"], row["b"], row["verdict"]) for row in case.rows()]
    unparsed = sum(duel.verdict is None for duel in duels)
    checks = [
        Check("n", case.expected["n"], len(duels)),
        Check("n_unparsed", case.expected["n_unparsed"], unparsed),
    ]
    sections = {
        "win_tie_loss": _records,
        "position": _position,
        "reconciled": _reconciled,
        "bradley_terry": _bradley_terry,
        "length_bias": _length_bias,
    }
    for name, expected in case.expected.items():
        if name in sections:
            checks += sections[name](case, duels, expected)
        elif name.startswith("elo"):
            checks += _elo(name, case, duels, expected)
    return checks


def _records(_: Case, duels: list[Duel], expected: Mapping[str, Any]) -> list[Check]:
    found = head_to_head(duels)
    checks = []
    for pair, record in expected.items():
        first, second = pair.split(" vs ")
        checks += compare(pair, record, found.get((first, second), {}), CLOSE)
    return checks


def _position(_: Case, duels: list[Duel], expected: Mapping[str, Any]) -> list[Check]:
    bias = position_bias(duels)
    counts = {
        "pairs": bias.pairs,
        "both_parsed": bias.both_parsed,
        "consistent": bias.consistent,
        "first_in_both": bias.first_in_both,
        "second_in_both": bias.second_in_both,
        "tie_in_one_order": bias.tie_in_one_order,
        "unparsed": bias.pairs - bias.both_parsed,
    }
    rates = {
        "consistency": bias.consistent / bias.both_parsed,
        "first_bias_rate": bias.first_in_both / bias.both_parsed,
        "second_bias_rate": bias.second_in_both / bias.both_parsed,
        "kappa_between_orders": bias.kappa,
    }
    shown = Counter(str(duel.verdict) for duel in duels)
    checks = compare("position", {k: v for k, v in expected.items() if k in rates}, rates, CLOSE)
    checks += compare("position.counts", expected.get("counts", {}), counts, CLOSE)
    checks += compare("position.single_order", expected.get("single_order", {}), shown, CLOSE)
    if "cm_order1_rows_a_b_tie" in expected:
        table = [list(row) for row in bias.confusion]
        checks.append(Check("position.confusion", expected["cm_order1_rows_a_b_tie"], table))
    return checks


def _reconciled(_: Case, duels: list[Duel], expected: Mapping[str, Any]) -> list[Check]:
    found = reconciled(duels)
    checks = []
    for name, record in expected.items():
        got = (
            {**asdict(found[name]), "win_rate_adjusted": found[name].win_rate_adjusted}
            if name in found
            else {}
        )
        checks += compare(f"reconciled.{name}", record, got, CLOSE)
    return checks


def _bradley_terry(case: Case, duels: list[Duel], expected: Mapping[str, Any]) -> list[Check]:
    found = bradley_terry(matches_of(duels), samples=0)
    limit = case.tolerance("bt_rating", 0.05)
    return [
        Check(f"bradley_terry.{name}", value["rating"], found[name].rating, limit)
        for name, value in expected.items()
    ]


def _elo(section: str, case: Case, duels: list[Duel], expected: Mapping[str, Any]) -> list[Check]:
    given = expected["params"]
    drawn = re.search(r"\d+", str(given.get("sample", "")))
    rules = EloRules(
        given["orders"], float(given["K"]), float(given["start"]), int(drawn[0]) if drawn else None
    )
    found = elo_ratings(matches_of(duels), rules)
    checks = []
    for name, value in expected["ratings"].items():
        for field, limit in (
            ("mean", case.tolerance("elo_mean", 2.0)),
            ("sd", case.tolerance("elo_sd", 3.0)),
        ):
            if field in value:
                checks.append(
                    Check(f"{section}.{name}.{field}", value[field], getattr(found[name], field), limit)
                )
    return checks


def _length_bias(case: Case, duels: list[Duel], expected: Mapping[str, Any]) -> list[Check]:
    try:
        answers = {
            name: case.answers(name) for name in {duel.a for duel in duels} | {duel.b for duel in duels}
        }
    except MissingInputError:
        return []
    longer, decisive = longer_wins(duels, lambda player, item: len(answers[player][item]))
    got = {"longer_wins": longer, "decisive_with_unequal_length": decisive, "rate": longer / decisive}
    return compare("length_bias", {key: expected[key] for key in got if key in expected}, got, CLOSE)
