"""AlpacaEval's leaderboard: raw and length-controlled win rates from published annotations."""

from dataclasses import asdict
from typing import Any

import numpy as np

from lora_kit.harness.published.case import EXACT, Case, Check
from lora_kit.harness.statistics.length_control import (
    LengthControlled,
    LengthRows,
    length_controlled,
    standardised_gap,
    win_rate_at,
)
from lora_kit.harness.statistics.win_rate import shares, win_rate

ANCHOR = "alpaca_eval/lc_anchor/gamed_anchor.jsonl.gz"
DIFFICULTY = "alpaca_eval/lc_anchor/difficulty.jsonl.gz"
STRENGTHS = {"l1_C2_78": 10 ** (4 / 9), "l1_C21_5": 10 ** (12 / 9)}  # of np.logspace(-4, 4, 10)
COUNTS = ("n_rows", "n_total", "n_wins", "n_wins_base", "n_draws")


def check_alpaca_eval(case: Case) -> list[Check]:
    """Win rate, counts and length control; published values too."""
    rows = case.rows()
    raw = asdict(win_rate([row["preference"] for row in rows]))
    got = {**raw, "n_rows": len(rows), "avg_length": float(np.mean([len(row["output_2"]) for row in rows]))}
    checks = [
        Check(name, value, got[name], EXACT if name in COUNTS else case.tolerance(name))
        for name, value in case.expected.items()
        if name in got
    ]
    for name, value in case.published.items():
        if name in got and value is not None:
            limit = case.tolerance("counts") if name in COUNTS else case.tolerance(name)
            checks += case.published_checks(f"published.{name}", value, case.expected[name], got[name], limit)
    return [*checks, *_length_control(case, rows)]


def _length_control(case: Case, rows: list[dict[str, Any]]) -> list[Check]:
    expected = case.expected.get("length_controlled")
    if not expected:
        return []
    fits = _fits(case, rows)
    checks = [
        Check(
            f"length_controlled.{name}",
            expected[name]["lc"],
            fit.win_rate,
            case.tolerance("lc_with_matching_C"),
        )
        for name, fit in fits.items()
        if name in expected
    ]
    published = case.published.get("length_controlled_winrate")
    if published is not None and "no_l1" in expected:
        right, limit = expected["no_l1"]["lc"], case.tolerance("lc_with_anchor_any_C")
        checks += case.published_checks("published.lc", published, right, fits["no_l1"].win_rate, limit)
    if "from_published_weights" in expected:
        weights = case.expected["published_weights"]
        names = ("tanh_std_delta_len", "instruction_difficulty", "bias")
        got = win_rate_at((weights[names[0]], weights[names[1]], weights[names[2]]), _difficulty(case, rows))
        limit = case.tolerance("lc_from_published_weights")
        checks.append(
            Check("lc_from_published_weights", expected["from_published_weights"], got.win_rate, limit)
        )
    return checks


def _fits(case: Case, rows: list[dict[str, Any]]) -> dict[str, LengthControlled]:
    anchor_rows = case.read_rows(ANCHOR)
    columns = [
        [row[key] for row in anchor_rows] for key in ("std_delta_len", "difficulty", "pseudo_preference")
    ]
    anchor = LengthRows(*(np.array(column, dtype=np.float64) for column in columns))
    judged = _judged(case, rows)
    return {
        "no_l1": length_controlled(judged, anchor=anchor),
        "no_anchor_no_l1": length_controlled(judged),
        **{name: length_controlled(judged, anchor=anchor, strength=c) for name, c in STRENGTHS.items()},
    }


def _judged(case: Case, rows: list[dict[str, Any]]) -> LengthRows:
    """Lengths are standardised over all rows; only those with a preference are fitted."""
    lengths = np.array([(len(row["output_1"]), len(row["output_2"])) for row in rows], dtype=np.float64)
    gap, difficulty = standardised_gap(lengths[:, 0], lengths[:, 1]), _difficulty(case, rows)
    known = [
        (at, share) for at, share in enumerate(shares([r["preference"] for r in rows])) if share is not None
    ]
    keep = [at for at, _ in known]
    return LengthRows(gap[keep], difficulty[keep], np.array([share for _, share in known]))


def _difficulty(
    case: Case, rows: list[dict[str, Any]]
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Looked up by the row's index, not by its place (upstream's place is wrong where rows are missing)."""
    by_index = {row["index"]: row["difficulty"] for row in case.read_rows(DIFFICULTY)}
    return np.array([by_index[row["index"]] for row in rows], dtype=np.float64)
