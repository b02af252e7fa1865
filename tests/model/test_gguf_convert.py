"""A GGUF file becomes the model that it holds, once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_kit.errors import ModelError
from lora_kit.export.gguf.pre_tokenizers import find_pre_tokenizer
from lora_kit.model import gguf_convert
from lora_kit.model.base import find_base
from lora_kit.model.gguf_convert import converted_folder, find_in_package
from lora_kit.model.gguf_file import check_gguf
from lora_kit.recipe.schema import BaseSpec


@pytest.fixture
def package(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package that holds the file and does not survive being imported."""
    folder = tmp_path / "site" / "fragile_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "tiny.gguf").write_bytes(tiny_gguf.read_bytes())
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "nobody/nothing"}))
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def test_the_converted_model_is_the_packed_one(
    package: Path, tiny_llama: Path, tmp_path: Path, open_model: Any, no_sockets: None
) -> None:
    files = find_base(BaseSpec(model="package:fragile_package/tiny.gguf"), cache=tmp_path / "cache")
    assert files.revision is None
    assert files.family.name == "llama"
    original, converted = (load_file(folder / "model.safetensors") for folder in (tiny_llama, files.folder))
    assert original.keys() == converted.keys()
    assert all(torch.equal(original[name], converted[name]) for name in original)
    ids = torch.arange(4, 40)[None]
    assert torch.equal(open_model(files.folder)(ids).logits, open_model(tiny_llama)(ids).logits)
    config = json.loads((files.folder / "config.json").read_text("utf-8"))
    assert "quantization_config" not in config


def test_the_tokenizer_comes_along(tiny_gguf: Path, tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours, theirs = (
        AutoTokenizer.from_pretrained(folder)
        for folder in (converted_folder(tiny_gguf, cache=tmp_path), tiny_llama)
    )
    text = "the answer is<|im_end|> there\n"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.chat_template == theirs.chat_template
    assert ours.eos_token_id == theirs.eos_token_id


def test_digits_stay_apart_where_the_file_says_so(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers drops the rule of `smollm`, which cuts between digits of every script."""
    from transformers import AutoTokenizer

    named = str(check_gguf(tiny_gguf).metadata["tokenizer.ggml.pre"])
    assert "smollm" in gguf_convert.DIGITS_APART
    monkeypatch.setattr(gguf_convert, "DIGITS_APART", {named})
    folder = converted_folder(tiny_gguf, cache=tmp_path)
    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("in 1½ or ٢٣ days")]
    assert pieces == ["in", "Ġ", "1", "Â½", "Ġor", "Ġ", "Ù¢", "Ù£", "Ġdays"]
    rule = find_pre_tokenizer(json.loads((folder / "tokenizer.json").read_text("utf-8")))
    assert rule is not None
    assert rule.name == "smollm"


def test_it_is_converted_once_and_found_by_content(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = converted_folder(tiny_gguf, cache=tmp_path / "cache")
    assert capfd.readouterr().err == ""
    assert sorted(p.name for p in first.parent.iterdir() if not p.name.endswith(".lock")) == [first.name]
    monkeypatch.setattr(gguf_convert, "convert", lambda *_: pytest.fail("converted again"))
    elsewhere = tmp_path / "tiny.gguf"
    elsewhere.write_bytes(tiny_gguf.read_bytes())
    assert converted_folder(elsewhere, cache=tmp_path / "cache") == first


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, tiny_gguf: Path) -> None:
    damaged = tmp_path / "tiny.gguf"
    damaged.write_bytes(tiny_gguf.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut off"):
        converted_folder(damaged, cache=tmp_path / "cache")
    assert not [
        path
        for path in (tmp_path / "cache" / "bases").iterdir()
        if path.name.startswith("tiny") and path.is_dir()
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package:no_such_package_anywhere/x.gguf", "pip install no_such_package_anywhere"),
        ("package:fragile_package/y.gguf", "no file 'y.gguf'"),
        ("package:fragile_package/../../secret", "no file"),
        ("package:../etc/passwd", "no installed package"),
        ("package:os.path/x", "no installed package"),
        ("package:", "no installed package"),
    ],
)
def test_names_that_lead_nowhere(package: Path, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ModelError, match=message.replace("'", ".")):
        find_base(BaseSpec(model=name), cache=tmp_path)


def test_find_in_package_does_not_import(package: Path) -> None:
    assert find_in_package("fragile_package", "tiny.gguf") == package / "tiny.gguf"
