"""Lines are whole, and a resume writes the same ones again."""

import json

import pytest

from lora_kit.artifacts.metrics_log import WALL_CLOCK_FIELDS, MetricsLog, read_metrics, stable_digest
from lora_kit.errors import DataError, MachineError


@pytest.fixture
def log(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    yield log
    log.close()


def test_lines_come_back_in_order(log):
    records = [{"step": step, "loss": 1 / (step + 1), "rows": ["a ü.jsonl:1\n"]} for step in range(5)]
    for record in records:
        log.append(record)
    assert read_metrics(log.path) == records
    assert log.offset == 5
    assert MetricsLog(log.path).offset == 5
    assert read_metrics(log.path.with_name("none.jsonl")) == []


def test_truncating_and_going_on_equals_never_having_stopped(log):
    log.append({"step": 1})
    offset = log.offset
    log.append({"step": 2})
    unbroken = log.path.read_bytes()
    log.append({"step": 3})
    log.close()
    log.truncate(offset)
    log.append({"step": 2})
    log.sync()
    assert log.path.read_bytes() == unbroken


@pytest.mark.parametrize("torn", [b'{"step": 2, "lo', b"\0\0\0\0", b"{"])
def test_a_torn_last_line_is_left_out_and_removed(log, torn):
    log.append({"step": 1})
    log.close()
    with log.path.open("ab") as stream:
        stream.write(torn)
    assert read_metrics(log.path) == [{"step": 1}]
    log.append({"step": 2})
    assert read_metrics(log.path) == [{"step": 1}, {"step": 2}]


def test_damage_in_the_middle_is_named(log):
    log.path.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: is not JSON"):
        read_metrics(log.path)
    log.path.write_bytes(b"3\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: is not a JSON object"):
        read_metrics(log.path)


def test_a_log_that_lost_lines_is_refused(log):
    log.append({"step": 1})
    with pytest.raises(MachineError, match="has 1 lines, the checkpoint was saved after 2; restore the file"):
        log.truncate(2)
    assert read_metrics(log.path) == [{"step": 1}]


def test_nan_is_our_mistake_and_leaves_no_line(log):
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append({"loss": float("nan")})
    assert log.offset == 0


def test_stable_digest_is_blind_to_the_clock_only(tmp_path):
    def digest(**changes):
        record = {"step": 1, "loss": 0.5, **dict.fromkeys(WALL_CLOCK_FIELDS, 1), **changes}
        (tmp_path / "m.jsonl").write_text(json.dumps(record) + "\n")
        return stable_digest(tmp_path / "m.jsonl")

    assert digest() == digest(seconds=2.5, tokens_per_second=7, peak_memory_bytes=9)
    assert digest() != digest(loss=0.5000000001)
    assert digest() != digest(extra=None)


def test_a_directory_that_is_gone(tmp_path):
    with pytest.raises(MachineError, match="moved or deleted"):
        MetricsLog(tmp_path / "gone" / "m.jsonl").append({})


def test_a_log_that_was_changed_is_refused_and_one_whose_clock_was_is_not(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.append({"step": step, "loss": 1 / step, "seconds": 0.5})
    digest, content = log.digest(), log.path.read_text()
    assert digest == stable_digest(log.path)
    log.append({"step": 4, "loss": 0.1, "seconds": 0.5})
    assert log.digest() == stable_digest(log.path) != digest
    log.close()
    for old, new, refused in (
        ('"seconds": 0.5', '"seconds": 9.5', False),
        ('"loss": 0.5', '"loss": 0.4', True),
    ):
        log.path.write_text(content.replace(old, new) + '{"step": 4}\n')
        changed = MetricsLog(log.path)
        if refused:
            with pytest.raises(MachineError, match="its first 3 lines were changed since the checkpoint"):
                changed.truncate(3, digest)
            assert log.path.read_text().endswith('{"step": 4}\n')
        else:
            changed.truncate(3, digest)
            assert changed.offset == 3
        changed.close()
