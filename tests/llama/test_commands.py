"""`lora-kit evaluate FILE.gguf` and `lora-kit chat FILE.gguf`, with the real engine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit.cli.app import run
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.types import Message
from lora_kit.harness.engines.llama_cpp_engine import open_gguf
from lora_kit.serve.chat import visible

PROMPTS = ("hi", "the quick brown fox", "what is 1 + 1?")


@pytest.fixture
def folder(tiny_folder: Any) -> Path:
    return tiny_folder("llama", tie_word_embeddings=False)


def test_a_file_is_scored(
    folder: Path, gguf: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": f"p-{n}", "category": "open_qa", "prompt": text} for n, text in enumerate(PROMPTS)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    references = [{"id": row["id"], "answer": "the dog sleeps"} for row in rows]
    (tmp_path / "references.jsonl").write_text("".join(json.dumps(row) + "\n" for row in references), "utf-8")
    suite = {
        "name": "small",
        "description": "three prompts",
        "prompts": "prompts.jsonl",
        "references": "references.jsonl",
        "metrics": ["rouge_l", "chrf"],
    }
    (tmp_path / "small.yaml").write_text(json.dumps(suite), "utf-8")  # JSON is YAML
    path = gguf(folder)
    command = ["evaluate", str(path), "--base", str(folder), "--suite", str(tmp_path / "small.yaml")]
    assert run([*command, "--out", str(tmp_path / "out"), "--max-new-tokens", "8"]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text("utf-8"))
    assert "chrf" in json.dumps(results)
    assert (tmp_path / "out/report.html").is_file()
    capsys.readouterr()


def test_a_file_is_talked_to(
    folder: Path,
    gguf: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = gguf(folder)
    typed = iter(PROMPTS[:2])

    def read(_: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    assert run(["chat", str(path), "--base", str(folder), "--max-new-tokens", "8"]) == 0
    shown = capsys.readouterr().out
    encoder = open_encoder(folder, "model", None)
    engine = open_gguf(path, encoder, vocabulary=300, context=256)
    [(_, first)] = engine.generate([[Message("user", PROMPTS[0])]], max_new_tokens=8, batch_size=1)
    assert shown.count("model> ") == 2
    assert f"model> {visible(first.text)}\n" in shown
