from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_kit.data import row_writer
from lora_kit.data.row_file import Blocks
from lora_kit.data.row_writer import RowWriter
from lora_kit.data.types import Example

TOKENS = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), max_size=40)
ORIGINS = st.text(max_size=12) | st.just("caf\udce9.jsonl:7")  # a file name that is not UTF-8
EXAMPLES = st.builds(
    lambda tokens, origin, said: Example(
        tuple(i for i, _ in tokens), tuple(t for _, t in tokens), origin, said
    ),
    TOKENS,
    ORIGINS,
    st.sampled_from(["", "0" * 64]),
)
ROWS = st.lists(st.tuples(EXAMPLES, st.booleans()), max_size=20)
Rows = list[tuple[Example, bool]]


def example(*ids: int, origin: str = "f:1") -> Example:
    return Example(ids, tuple(token % 2 == 0 for token in ids), origin, "h")


def written(path: Path, rows: Rows) -> tuple[Blocks, str]:
    with RowWriter(path) as writer:
        for one, held_out in rows:
            writer.add(one, held_out=held_out)
        fingerprint = writer.fingerprint()
    assert writer.rows == {side: sum(held == side for _, held in rows) for side in (False, True)}
    assert writer.trained_tokens == sum(one.trained_tokens for one, _ in rows)
    return Blocks.open(path), fingerprint


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, block=st.integers(1, 5))
def test_what_is_written_is_read_back(
    rows: Rows, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_writer, "_BLOCK_ROWS", block)
    blocks, fingerprint = written(tmp_path / "rows.arrow", rows)
    for side in (False, True):
        wanted = [one for one, held_out in rows if held_out == side]
        found = blocks.side(held_out=side)
        assert list(found) == wanted
        assert [found[at] for at in range(len(found))] == wanted
        assert found == wanted
        assert list(found.origins()) == [one.origin for one in wanted]
        assert found.lengths.tolist() == [len(one.input_ids) for one in wanted]
    monkeypatch.setattr(row_writer, "_BLOCK_ROWS", 1 << 14)
    assert written(tmp_path / "again.arrow", rows)[1] == fingerprint


def test_blocks_end_at_tokens_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_writer, "_BLOCK_TOKENS", 10)
    written(tmp_path / "rows.arrow", [(example(*range(5)), False)] * 6)
    assert pa.ipc.open_file(str(tmp_path / "rows.arrow")).num_record_batches == 3


def test_examples_are_a_sequence(tmp_path: Path) -> None:
    rows = [(example(n, n + 1, origin=f"f:{n}"), n % 3 == 0) for n in range(9)]
    blocks, _ = written(tmp_path / "rows.arrow", rows)
    (tmp_path / "rows.arrow").unlink()  # it stays mapped
    train, held = blocks.side(held_out=False), blocks.side(held_out=True)
    assert train[-1].origin == "f:8"
    assert [one.origin for one in train[1:4]] == ["f:2", "f:4", "f:5"]
    assert [one.origin for one in held + train[:1]] == ["f:0", "f:3", "f:6", "f:1"]
    assert rows[1][0] in train
    assert train.index(rows[4][0]) == 2
    assert train != held
    assert train[:0] == ()
    with pytest.raises(IndexError):
        train[6]


@pytest.mark.parametrize("change", ["an id", "a flag", "the order", "the side", "where tokens end"])
def test_the_fingerprint_sees_every_change(change: str, tmp_path: Path) -> None:
    rows: Rows = [(example(1, 2, 3), False), (example(5, 6), False), (example(7), True)]
    before = written(tmp_path / "rows.arrow", rows)[1]
    changed: dict[str, Rows] = {
        "an id": [(Example((1, 4, 3), rows[0][0].trained, "f:1", "h"), False), *rows[1:]],
        "a flag": [(Example((1, 2, 3), (True, True, False), "f:1", "h"), False), *rows[1:]],
        "the order": [rows[1], rows[0], rows[2]],
        "the side": [rows[0], (rows[1][0], True), rows[2]],
        "where tokens end": [(example(1, 2), False), (example(3, 5, 6), False), rows[2]],
    }
    assert written(tmp_path / "other.arrow", changed[change])[1] != before
    elsewhere = [(Example(one.input_ids, one.trained, "g:2", "x"), held_out) for one, held_out in rows]
    assert written(tmp_path / "elsewhere.arrow", elsewhere)[1] == before


def test_another_arrow_file_is_refused(tmp_path: Path) -> None:
    table = pa.table({"input_ids": [[1]]})
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(pa.ArrowInvalid, match="not a file of encoded rows"):
        Blocks.open(tmp_path / "x.arrow")
