"""The numbers of the papers, recomputed from the published judgments.

What takes long (corpus ROUGE, replays with faults) is left to ``scripts/reproduce_published``, or to a run
with LORA_KIT_THOROUGH=1.
"""

import json
import os

import pytest

from lora_kit.errors import DataError
from lora_kit.harness.published.case import Case, Check
from lora_kit.harness.published.manifest import run_manifest


def test_every_published_number_comes_out(shared_data):
    thorough = os.environ.get("LORA_KIT_THOROUGH") == "1"
    outcomes = list(run_manifest(shared_data / "evaluation" / "manifest.json", thorough=thorough))
    missed = [(outcome.id, check) for outcome in outcomes for check in outcome.missed]
    assert not missed
    assert [outcome.id for outcome in outcomes if outcome.skipped] == []
    assert all(outcome.checks for outcome in outcomes)


def write_manifest(folder, **changes):
    rows = [
        {"a": "ref", "b": "sys", "score_a": 8.0, "score_b": 6.0, "protocol": "pair-score-1-10", "raw": ""},
        {
            "a": "sys",
            "b": "ref",
            "score_a": None,
            "score_b": None,
            "protocol": "pair-score-1-10",
            "raw": "9 9\n",
        },
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    order = {"n": 1, "sum_sys": 6.0, "sum_ref": 8.0, "pct": 75.0, "win": 0, "tie": 0, "loss": 1}
    case = {
        "id": "made",
        "kind": "relative_score",
        "file": "rows.jsonl",
        "reference_model": "ref",
        "expected_strict": {"ref_first": order},
        "expected_recovered": {"ref_first": order, "pooled": 100 * 15 / 17},
        "published": {"ref_first": 75.0, "mean": 88.2},
        "tolerance": {"reference_impl": 1e-6, "published_per_order_pct": 0.06, "published_mean_pooled": 0.15},
    }
    (folder / "manifest.json").write_text(json.dumps({"cases": [case | changes]}))
    return folder / "manifest.json"


def test_any_manifest_of_the_form_is_run(tmp_path):
    [outcome] = run_manifest(write_manifest(tmp_path))
    assert not outcome.missed
    assert len(outcome.checks) == 17


def test_a_wrong_number_is_a_miss(tmp_path):
    wrong = {"ref_first": {"pct": 75.1}}
    [outcome] = run_manifest(write_manifest(tmp_path, expected_strict=wrong, published=None))
    assert [check.name for check in outcome.missed] == ["strict.ref_first.pct"]


def test_a_known_error_of_a_publication_is_not_ours(tmp_path):
    [outcome] = run_manifest(write_manifest(tmp_path, published={"ref_first": 85.7}))
    assert not outcome.missed
    assert not any(check.name.startswith("published") for check in outcome.checks)


def test_what_can_not_be_run_is_named_and_not_passed(tmp_path):
    [missing] = run_manifest(write_manifest(tmp_path, file="nowhere.jsonl"))
    assert (missing.checks, missing.skipped) == ((), "no nowhere.jsonl")
    [unknown] = run_manifest(write_manifest(tmp_path, kind="new"))
    assert "'new'" in unknown.skipped


def test_a_file_that_is_no_manifest_is_one_line(tmp_path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match="not a manifest"):
        list(run_manifest(tmp_path / "x.json"))


def test_checks_are_exact_but_for_numbers_with_a_tolerance():
    assert Check("n", 1.0, 1.05, 0.1).holds
    assert not Check("n", 1, 2).holds
    assert not Check("n", 1.0, float("nan"), 0.1).holds
    assert Check("n", None, None).holds
    assert not Check("n", None, 0).holds
    assert not Check("n", "a", 1).holds


def test_tolerances_of_a_case_have_defaults(tmp_path):
    case = Case({"tolerance": {"x": 2}}, tmp_path)
    assert (case.tolerance("x"), case.tolerance("y", 3.0)) == (2.0, 3.0)
