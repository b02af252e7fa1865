"""Vicuna's and QLoRA's pair scores: % of the reference, in one order and in both."""

from dataclasses import asdict
from typing import Any

from lora_kit.harness.judge_replies import read_reply
from lora_kit.harness.published.case import Case, Check, compare
from lora_kit.harness.statistics.relative_score import OrderScore, PairScore, RelativeScore, relative_score

ORDERS = ("ref_first", "sys_first")


def check_both_orders(case: Case) -> list[Check]:
    """QLoRA's table of relative scores: as published (strict), and with every reply read (recovered)."""
    strict, recovered = (_score(case, recover=recover) for recover in (False, True))
    tolerance = case.tolerance("reference_impl")
    checks = [
        *_compare("strict", case.fields.get("expected_strict", {}), strict, tolerance),
        *_compare("recovered", case.fields.get("expected_recovered", {}), recovered, tolerance),
    ]
    for order in ORDERS:
        if order in case.published:
            right = case.fields["expected_strict"][order]["pct"]
            got = getattr(strict, order).pct
            limit = case.tolerance("published_per_order_pct")
            checks += case.published_checks(f"published.{order}", case.published[order], right, got, limit)
    if "mean" in case.published:
        right, limit = case.fields["expected_recovered"]["pooled"], case.tolerance("published_mean_pooled")
        checks += case.published_checks(
            "published.mean", case.published["mean"], right, recovered.pooled, limit
        )
    return checks


def check_one_order(case: Case) -> list[Check]:
    """The Vicuna blog: the other system was always shown first."""
    scores = [PairScore(row["score_b"], row["score_a"], reference_first=True) for row in case.rows()]
    found = relative_score(scores).ref_first
    got = {
        "n": found.n,
        "sum_a": found.sum_ref,
        "sum_b": found.sum_sys,
        "b_pct_of_a": found.pct,
        "b_win": found.win,
        "tie": found.tie,
        "b_loss": found.loss,
    }
    checks = compare("expected", case.expected, got, case.tolerance("pct"))
    sums = ("sum_a", "sum_b")
    checks += [
        Check(f"expected.{name}", case.expected[name], got[name], case.tolerance("sums")) for name in sums
    ]
    for name in sums:
        if name in case.published:
            limit = case.tolerance("sums")
            checks += case.published_checks(
                f"published.{name}", case.published[name], case.expected[name], got[name], limit
            )
    return checks


def _score(case: Case, *, recover: bool) -> RelativeScore:
    return relative_score(
        [_pair(row, case.fields["reference_model"], recover=recover) for row in case.rows()]
    )


def _pair(row: dict[str, Any], reference: str, *, recover: bool) -> PairScore:
    """Scores as published; what its authors could not parse is read again from the reply if asked."""
    shown: tuple[float | None, float | None] = (row["score_a"], row["score_b"])
    if recover and None in shown:
        value = read_reply(row["protocol"], row["raw"]).value
        shown = value if isinstance(value, tuple) else (None, None)
    reference_first = row["a"] == reference
    system, baseline = shown[::-1] if reference_first else shown
    return PairScore(system, baseline, reference_first)


def _compare(name: str, expected: dict[str, Any], got: RelativeScore, tolerance: float) -> list[Check]:
    checks = []
    for key, value in expected.items():
        found = getattr(got, key)
        if isinstance(found, OrderScore):
            checks += compare(f"{name}.{key}", value, {**asdict(found), "pct": found.pct}, tolerance)
        else:
            checks.append(Check(f"{name}.{key}", value, found, tolerance))
    return checks
