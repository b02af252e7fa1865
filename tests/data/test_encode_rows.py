import json
import subprocess
import sys
from pathlib import Path

import pytest

from lora_kit.data import encode_rows
from lora_kit.data.encode_rows import planned_rows
from lora_kit.data.ledger import Ledger
from lora_kit.data.prepare import prepare_data
from lora_kit.data.types import Conversation
from lora_kit.errors import DataError

# Encodes one token a character, in a process whose peak memory is its own.
MEASURED = """
import json, re, sys
from pathlib import Path
from lora_kit.data.prepare import prepare_data
from lora_kit.data.types import Example
from lora_kit.recipe.schema import DataSpec

class Characters:
    fingerprint = "c" * 64
    def try_encode_many(self, conversations):
        return [self.encode(one) for one in conversations]
    def encode(self, conversation):
        ids = tuple(map(ord, "".join(message.content for message in conversation.messages)))
        return Example(ids, (True,) * len(ids), conversation.origin, "")

def peak():
    return int(re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[0]) >> 10

before = 0
for name in sys.argv[2:]:
    spec = DataSpec(train=name, format="alpaca", max_tokens=10**7)
    data = prepare_data(spec, Characters(), cache=Path(sys.argv[1]))
    before = before or peak()
print(json.dumps([before, peak(), len(data.train) + len(data.validation)]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_rows(write_rows, tmp_path: Path) -> None:
    words = [f"{n:05d} word{n}" for n in range(3000)]
    rows = [
        {
            "instruction": f"q{n}",
            "output": " ".join(words[n % 2500 : n % 2500 + 400][:: 1 + n % 3] + words[: n % 97]),
        }
        for n in range(4000)
    ]
    files = [str(write_rows(rows[:1000], "few.jsonl")), str(write_rows(rows, "many.jsonl"))]
    more = sum(len(row["output"]) for row in rows[1000:])
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "encoded"), *files]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    few, many, used = json.loads(done.stdout)
    assert used > 3500
    as_objects = more * 16 >> 20  # megabytes of ids and flags in tuples
    assert as_objects > 100
    assert many - few < as_objects / 3


def test_batches_end_at_characters_too(
    write_rows, make_spec, byte_encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_rows, "_BATCH_CHARACTERS", 50)
    rows = [{"instruction": f"{n}", "output": "x" * 20} for n in range(8)]
    calls: list[tuple[int, int]] = []
    spec = make_spec(write_rows(rows))
    data = prepare_data(spec, byte_encoder, on_progress=lambda *call: calls.append(call))
    assert calls == [(3, 8), (6, 8), (8, 8)]
    assert [one.origin for one in data.train] == [f"rows.jsonl:{n}" for n in range(1, 9)]


def test_one_row_may_be_spread_over_batches(
    shared_data: Path, make_spec, byte_encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(shared_data / "train" / "en_100_tree.jsonl", format="openassistant", max_tokens=10**6)
    whole = prepare_data(spec, byte_encoder)
    monkeypatch.setattr(encode_rows, "_BATCH_ROWS", 3)
    by_threes = prepare_data(spec.model_copy(update={"overlong": "drop"}), byte_encoder)
    assert by_threes.report.to_json() == whole.report.to_json()
    assert by_threes.fingerprint == whole.fingerprint


@pytest.mark.parametrize("second", [["f:1"], ["f:1", "f:3"], ["f:1", "f:2", "f:3"]])
def test_a_second_pass_that_differs_is_noticed(second: list[str]) -> None:
    ledger = Ledger()
    for origin in ("f:1", "f:2"):
        ledger.enter(Conversation((), origin), key=bytes(16), digest=bytes(16), held_out=False)
    rows = iter([(origin, [Conversation((), origin)]) for origin in second])
    with pytest.raises(DataError, match="the rows changed while they were read"):
        list(planned_rows(rows, ledger))
