"""P14: 2,000 mutated recipes and 500 mutated files of rows are read, or refused in lines; no traceback."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from lora_kit.cli.console import report_error
from lora_kit.data.prepare import prepare_data
from lora_kit.data.survey import Outline
from lora_kit.errors import DataError, LoraKitError, RecipeError
from lora_kit.recipe.load import load_recipe
from lora_kit.recipe.schema import DataSpec

pytestmark = pytest.mark.fault("P14")

RECIPE = b"""\
name: fuzzed
base: {model: owner/model}
data:
  train: rows.jsonl
  format: alpaca
  validation_fraction: 0.1
lora:
  targets: [q_proj, "v_proj"]
train:
  learning_rate: 2e-4
"""
ROWS = [
    {"instruction": "Name a colour.", "input": "", "output": 'Blue, "like" the sea\\n.'},
    {"instruction": "What is 2 + 2?", "input": "Count, please", "output": "4"},
    {"instruction": "Sag etwas Schönes 🦙", "input": "", "output": "Gerne"},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
]
PIECES = [
    b"", b" ", b"\n", b"\t", b"\r", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b":", b": ", b",",
    b"#", b"&a ", b"*a", b"!!str ", b"<<: ", b"---\n", b"[", b"]", b"{", b"}", b"'", b'"', b"|", b"@", b"-",
    b">", b"%", b"\\", b"null", b"true", b"1e999", b"NaN", b"-1", b"0x1f", b"9" * 400, b".inf", b"1_000",
    b"[" * 60, b'"\\ud800"', b"../../etc", b"~", b"$HOME", b"https://u:p@h/x", b"train", b"steps: 1\n",
    b'"role": "system",', b"x" * 3000,
]  # fmt: skip
COUNT = 2000


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to three edits: a piece is put in, a part is taken out, doubled, moved, or a bit is flipped."""
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice([0, 1, 3, 10, 40]))
        part = data[start:end]
        other = chance.randrange(len(data) + 1)
        new = chance.choice([
            chance.choice(PIECES),
            chance.choice(PIECES),
            b"",
            part + part,
            data[other : other + 20],
            bytes(byte ^ (1 << chance.randrange(8)) for byte in part[:1]) + part[1:],
        ])  # fmt: skip
        data = data[:start] + new + data[end:]
    return data


def one_line_each(error: LoraKitError, capsys: pytest.CaptureFixture[str]) -> None:
    report_error(error)
    lines = capsys.readouterr().err.splitlines()
    assert sum("error:" in line and line.startswith("lora_kit:") for line in lines) == 1
    assert len(lines) == len(error.problems) + (len(error.problems) > 1)
    assert "Traceback" not in "".join(lines)
    assert max(map(len, lines)) < 1000


@pytest.mark.parametrize("quarter", range(4))
def test_2000_mutated_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str], quarter: int) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    path = tmp_path / "recipe.yaml"
    outcomes: Counter[str] = Counter()
    for seed in range(quarter, COUNT, 4):
        path.write_bytes(mutated(RECIPE, random.Random(seed)))
        try:
            load_recipe(path)
            outcomes["loaded"] += 1
        except RecipeError as error:
            outcomes["refused"] += 1
            one_line_each(error, capsys)
    assert outcomes.total() == COUNT // 4
    assert min(outcomes["loaded"], outcomes["refused"]) > COUNT // 80


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "messages.jsonl"])
def test_500_mutated_files_of_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    texts = {
        "jsonl": "\n".join(lines[:3]) + "\n",
        "json": f"[{', '.join(lines[:3])}]",
        "csv": "instruction,input,output\n" + '"a, b",,"c ""d"""\ne,f,"g\nh"\n' * 2,
        "messages.jsonl": (lines[3] + "\n") * 2,
    }
    path = tmp_path / f"rows.{kind}"
    layout = "messages" if kind.startswith("messages") else "alpaca"
    strict = DataSpec(train=str(path), format=layout, validation_fraction=0.0)
    lenient = strict.model_copy(update={"on_bad_row": "drop", "on_empty": "drop"})
    outcomes: Counter[str] = Counter()
    for seed in range(COUNT // 16):
        path.write_bytes(mutated(texts[kind].encode(), random.Random(seed)))
        try:
            report = prepare_data((strict, lenient)[seed % 2], Outline()).report.to_json()
            assert report["rows_read"] == report["rows_used"] + sum(
                t["count"] for t in report["dropped"].values()
            )
            outcomes["read"] += 1
        except DataError as error:
            outcomes["refused"] += 1
            one_line_each(error, capsys)
    assert min(outcomes["read"], outcomes["refused"]) > 3
