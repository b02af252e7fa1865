"""Talking to a GGUF file: the ids of our encoder go in, an answer ends where training's does."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lora_kit.cli.app import run
from lora_kit.data.open_encoder import open_encoder
from lora_kit.harness.engines.llama_cpp_engine import LlamaCppEngine
from lora_kit.serve.chat import chat
from lora_kit.serve.stream import Sampling


class Llama:
    """As much of ``llama_cpp.Llama`` as is used."""

    def __init__(self, script: Sequence[int]) -> None:
        self.script, self.asked, self.computed = script, [], 0

    def n_ctx(self) -> int:
        return 96

    def set_seed(self, seed: int) -> None:
        self.seed = seed

    def generate(self, prompt: list[int], **settings: float) -> Iterator[int]:
        self.asked.append((prompt, settings))
        for token in self.script:
            self.computed += 1
            yield token
        pytest.fail("asked for more than the script holds")


def talk(engine: Any, *lines: str, sampling: Sampling) -> str:
    typed, shown = iter(lines), []

    def read() -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    chat(engine, read=read, write=shown.append, options=sampling)
    return "".join(shown)


def test_a_conversation(tiny_llama: Path) -> None:
    encoder = open_encoder(tiny_llama, "model", None)
    ids = encoder.tokenizer.encode_plain("the dog")
    llama = Llama([*ids, min(encoder.stop_ids), 7])
    engine = LlamaCppEngine("x", Path("x.gguf"), encoder, llama)
    shown = talk(engine, "hi", "/base", "why?", sampling=Sampling(20, 0.5, 0.9, 3))
    assert shown.count("model> the dog\n") == 2
    assert "no adapter" in shown
    first, second = (prompt for prompt, _ in llama.asked)
    assert second[: len(first)] == first
    assert llama.asked[0][1] == {"temp": 0.5, "top_p": 0.9, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
    assert (llama.seed, llama.computed) == (3, 2 * (len(ids) + 1))


def test_limits(tiny_llama: Path) -> None:
    encoder = open_encoder(tiny_llama, "model", None)
    llama = Llama(encoder.tokenizer.encode_plain("the quick brown fox jumps over the lazy dog"))
    engine = LlamaCppEngine("x", Path("x.gguf"), encoder, llama)
    shown = talk(engine, "hi", "the dog " * 60, sampling=Sampling(2))
    assert "cut after 2 tokens" in shown
    assert "shorten it" in shown
    assert (len(llama.asked), llama.computed) == (1, 2)


def test_the_command_asks_for_the_base(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["chat", str(tiny_gguf)]) == 2
    assert "--base" in capsys.readouterr().err
    assert run(["chat", str(tmp_path / "x.gguf")]) == 4
    assert "no such file" in capsys.readouterr().err
