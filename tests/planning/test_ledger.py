"""The ledger: bounded, keyed by machine and kind, deaf to damage, and never a reason to fail."""

import json
from pathlib import Path

import pytest

from lora_kit.planning import ledger
from lora_kit.planning.ledger import (
    Amounts,
    append,
    correction,
    keep_prediction,
    kept_prediction,
    ledger_file,
)

RAW = Amounts(100.0, 20.0, 2e9)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def runs(*factors: float, kind: str = "measured cpu") -> None:
    for factor in factors:
        assert append("f" * 64, kind, RAW, Amounts(100 * factor, 20.0, 2e9), "2026-01-01T00:00:00+00:00")


def test_a_new_machine_corrects_nothing() -> None:
    found = correction("measured cpu")
    assert found.runs == 0
    assert found.applied(RAW) == RAW


def test_the_median_of_runs_of_the_same_kind_corrects() -> None:
    runs(1.2, 1.3, 9.0)
    runs(0.5, kind="predicted cpu")
    found = correction("measured cpu")
    assert found.runs == 3
    assert found.applied(RAW) == Amounts(pytest.approx(130.0), 20.0, 2e9)
    assert found.spread is not None


def test_only_recent_runs_count_and_the_file_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST_LINES", 12)
    runs(*[3.0] * 10, *[1.1] * ledger.RECENT)
    assert correction("measured cpu").factors["step_seconds"] == pytest.approx(1.1)
    assert len(ledger_file().read_text("utf-8").splitlines()) == 12


def test_a_wild_ratio_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    runs(1000.0)
    assert correction("measured cpu").factors["step_seconds"] == ledger.FURTHEST


def test_another_machine_is_not_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    runs(2.0)
    assert keep_prediction("a" * 64, "measured cpu", RAW)
    monkeypatch.setattr(ledger, "machine_name", lambda: "another")
    assert correction("measured cpu").runs == 0
    assert kept_prediction("a" * 64) is None


DAMAGED = [
    b"", b"{", b"[]", b"\xff\xfe\x00", b'{"machine": 1}', b"null", b"[" * 5000,
    b'{"machine": "m", "kind": "k", "predicted": {}, "actual": {}}',
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(DAMAGED)))
def test_damaged_lines_are_left_out_and_go(number: int) -> None:
    runs(1.5)
    with ledger_file().open("ab") as stream:
        stream.write(DAMAGED[number] + b"\n")
    assert correction("measured cpu").runs == 1
    runs(1.5)
    assert len(ledger_file().read_bytes().splitlines()) == 2


@pytest.mark.parametrize("value", [0, -1, "1", True, float("nan"), float("inf")])
def test_amounts_that_are_none_are_damage(value: object) -> None:
    runs(1.5)
    line = json.loads(ledger_file().read_text("utf-8"))
    line["actual"]["step_seconds"] = value
    ledger_file().write_text(json.dumps(line) + "\n", "utf-8")
    assert correction("measured cpu").runs == 0


def test_a_prediction_waits_for_its_run_and_old_ones_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST_PLANS", 2)
    for name in "abc":
        assert keep_prediction(name * 64, "measured cpu", RAW)
    assert kept_prediction("c" * 64) == ("measured cpu", RAW)
    assert sum(kept_prediction(name * 64) is not None for name in "abc") == 2


def test_a_cache_that_cant_be_written_fails_nothing(own_cache: Path) -> None:
    own_cache.write_text("a file where the folder would be", "utf-8")
    assert not keep_prediction("a" * 64, "measured cpu", RAW)
    assert not append("a" * 64, "measured cpu", RAW, RAW, "")
    assert kept_prediction("a" * 64) is None
    assert correction("measured cpu").runs == 0
