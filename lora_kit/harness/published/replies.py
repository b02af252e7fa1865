"""Judges' replies: parsing, log-probability preferences, MT-bench's single scores."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lora_kit.harness.judge_replies import read_reply
from lora_kit.harness.published.case import Case, Check, compare
from lora_kit.harness.statistics.turn_scores import TurnScore, last_of_each, turn_summary
from lora_kit.harness.statistics.win_rate import logprob_preference


def check_parsing(case: Case) -> list[Check]:
    """Published verdicts are read exactly; what had none gets the right one or None."""
    found: dict[str, list[tuple[Any, Any]]] = {"strict": [], "hand-fixed": [], "unparsed": []}
    for row in case.rows():
        right = row["recovered"] if row["kind"] == "unparsed" else row["published"]
        value = read_reply(row["protocol"], row["raw"]).value
        found[row["kind"]].append((_plain(right), value))
    mended = found["hand-fixed"]
    rate = sum(right == got for right, got in mended) / len(mended) if mended else 1.0
    least = case.tolerance("handfixed_min_rate", 1.0)
    wrong = sum(got is not None and got != right for right, got in found["unparsed"])
    return [
        Check(
            "strict wrong",
            0,
            sum(right != got for right, got in found["strict"]),
            case.tolerance("strict", 0),
        ),
        Check("hand-fixed rate", 1.0, rate, 1.0 - least),
        Check("wrong on unparsed", 0, wrong, case.tolerance("wrong_on_unparsed", 0)),
    ]


def check_logprobs(case: Case) -> list[Check]:
    """Preferences of AlpacaEval 2's judge: the largest error, and whether None is where it should be."""
    pairs = [
        (row["preference"], logprob_preference(row["top_logprobs"], model_shown=row["model_shown"]))
        for row in case.rows()
    ]
    errors = [abs(right - got) for right, got in pairs if right is not None and got is not None]
    return [
        Check("unjudged rows", 0, sum((right is None) != (got is None) for right, got in pairs)),
        Check("largest error", 0.0, max(errors, default=0.0), case.tolerance("preference")),
    ]


def check_mt_bench(case: Case) -> list[Check]:
    """Means of turns, with repeated rows and without."""
    rows = [
        TurnScore(
            row["item_id"], row["category"], row["turn"], row["score"] if (row["score"] or 0) > 0 else None
        )
        for row in case.rows()
    ]
    last = last_of_each(rows)
    checks = []
    for name, chosen in (("all_rows", rows), ("dedup_last", last)):
        if case.expected.get(name):
            checks += _summary_checks(name, case.expected[name], chosen, case.tolerance("score"))
    if "n_duplicates" in case.expected:
        checks.append(Check("n_duplicates", case.expected["n_duplicates"], len(rows) - len(last)))
    return checks


def _summary_checks(
    name: str, expected: Mapping[str, Any], rows: Sequence[TurnScore], tolerance: float
) -> list[Check]:
    got = asdict(turn_summary(rows))
    categories = expected.get("by_category", {})
    plain = {key: value for key, value in expected.items() if key in got and key != "by_category"}
    return [
        *compare(name, plain, got, tolerance),
        *compare(f"{name}.by_category", categories, got["by_category"], tolerance),
    ]


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    return tuple(float(score) for score in value) if isinstance(value, list) else value
