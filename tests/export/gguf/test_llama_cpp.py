"""llama.cpp's tokenizer in a process of its own, with a stand-in for the library."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit.errors import ModelError
from lora_kit.export.gguf import make
from lora_kit.export.gguf.llama_cpp import LlamaTokenizer

STAND_IN = """
from pathlib import Path
from lora_kit.export.gguf.read_tokens import FileTokenizer
from lora_kit.model.gguf_file import read_gguf

class Llama:
    def __init__(self, *, model_path, vocab_only, n_ctx, verbose):
        header = read_gguf(Path(model_path), lists=True)
        self.tokens = FileTokenizer({**header.metadata, **header.lists})

    def tokenize(self, text, add_bos, special):
        if b"crash" in text:
            import os
            os.abort()
        return self.tokens.encode(text.decode() + EXTRA)
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a stand-in that puts a text behind every text."""

    def install(extra: str) -> None:
        folder = tmp_path / "stand-in"
        folder.mkdir()
        (folder / "llama_cpp.py").write_text(f"EXTRA = {extra!r}\n{STAND_IN}", encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.setattr(make, "is_installed", lambda: True)

    return install


def test_the_certificate_goes_through_llama_cpp_too(
    library: Any, tiny_llama: Path, export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    library("")
    with_it = export(tiny_llama, quant="q8_0", measure_logits=False)
    assert with_it["same_tokens"]["doors"][1] == "llama.cpp's own tokenizer"
    monkeypatch.setattr(make, "is_installed", lambda: False)
    without = export(tiny_llama, quant="q8_0", measure_logits=False)
    assert with_it["same_tokens"]["tokens"] == 2 * without["same_tokens"]["tokens"]
    assert with_it["texts"] == 2 * without["texts"]


def test_another_tokenizer_makes_the_export_fail(
    library: Any, tiny_llama: Path, export: Any, tmp_path: Path
) -> None:
    library(" x")
    with pytest.raises(ModelError, match="the exported tokenizer reads"):
        export(tiny_llama, quant="q8_0", measure_logits=False)
    assert not list(tmp_path.glob("*gguf*"))


def test_a_process_that_dies_is_an_error_not_our_end(library: Any, tiny_llama: Path, export: Any) -> None:
    library("")
    report = export(tiny_llama, quant="q8_0", measure_logits=False)
    path = Path(report["folder"]) / report["file"]
    with LlamaTokenizer(path) as tokenizer:
        assert tokenizer.encode("two\nlines")
        with pytest.raises(ModelError, match=r"llama\.cpp can't read its tokenizer"):
            tokenizer.encode("crash")
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="not a readable GGUF file"), LlamaTokenizer(path):
        pass
