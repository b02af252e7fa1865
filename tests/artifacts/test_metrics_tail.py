"""Watching the log of a run that is at work: whole lines only, and a log that was cut back is read anew."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_kit.artifacts.metrics_log import MetricsLog
from lora_kit.artifacts.metrics_tail import MetricsTail


def steps(tail: MetricsTail) -> list[int]:
    return [record["step"] for record in tail.read()]


def test_a_log_that_is_not_there_yet_and_then_grows(tmp_path: Path) -> None:
    tail, log = MetricsTail(tmp_path / "metrics.jsonl"), MetricsLog(tmp_path / "metrics.jsonl")
    assert steps(tail) == []
    for step in range(1, 4):
        log.append({"step": step})
        assert steps(tail) == list(range(1, step + 1))
    assert steps(tail) == [1, 2, 3]


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_a_half_line_is_not_read_until_it_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    whole = b"".join(json.dumps({"step": step, "text": "é"}).encode() + b"\n" for step in range(1, 4))
    tail = MetricsTail(path)
    for cut in [*sorted(min(cut, len(whole)) for cut in cuts), len(whole)]:
        path.write_bytes(whole[:cut])
        assert steps(tail) == list(range(1, whole[:cut].count(b"\n") + 1))


@pytest.mark.parametrize("again", [1, 2, 5])
def test_a_resumed_run_writes_its_last_steps_again(tmp_path: Path, again: int) -> None:
    """Also when the new lines reach beyond where the watcher was, so that the size does not tell."""
    tail, log = MetricsTail(tmp_path / "metrics.jsonl"), MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 7):
        log.append({"step": step, "seconds": 0.1})
    assert steps(tail) == [1, 2, 3, 4, 5, 6]
    log.truncate(3)
    for step in range(4, 4 + again):
        log.append({"step": step, "seconds": 0.123456789})
    assert steps(tail) == list(range(1, 4 + again))
    log.append({"step": 4 + again})
    assert steps(tail) == list(range(1, 5 + again))


def test_what_is_no_record_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\nnot json\n[1]\n{"step": "2"}\n\xff\n{"step": 3}\n')
    assert steps(MetricsTail(path)) == [1, 3]
