"""What is here of a base: all of it, config.json alone, or nothing and no network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.errors import MachineError, ModelError
from lora_kit.planning.known import gguf_refusal, know_base
from lora_kit.recipe.schema import BaseSpec

TinyFolder = Callable[..., Path]


@pytest.fixture
def stand_in(tmp_path: Path, tiny_folder: TinyFolder) -> Path:
    """A folder with config.json and nothing else."""
    shutil.copy(tiny_folder("llama") / "config.json", tmp_path)
    return tmp_path


def test_weights_that_are_here_are_found(tiny_folder: TinyFolder) -> None:
    base = know_base(BaseSpec(model=str(tiny_folder("llama"))))
    assert base.files is not None
    assert base.has_tokenizer


def test_config_alone_is_enough_to_know_a_base(stand_in: Path) -> None:
    base = know_base(BaseSpec(model=str(stand_in)))
    assert base.files is None
    assert not base.has_tokenizer
    assert base.family.name == "llama"
    assert gguf_refusal(base) == ""


def test_an_architecture_without_support_is_named(stand_in: Path) -> None:
    (stand_in / "config.json").write_text(json.dumps({"model_type": "t5"}), "utf-8")
    with pytest.raises(ModelError, match=r"unsupported model 't5'.*known:"):
        know_base(BaseSpec(model=str(stand_in)))


def test_a_folder_without_config_is_no_base(stand_in: Path) -> None:
    (stand_in / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        know_base(BaseSpec(model=str(stand_in)))


def test_a_hub_model_without_network_says_what_to_do(no_sockets: None) -> None:
    with pytest.raises(MachineError, match=r"not in the cache.*config\.json as base\.model"):
        know_base(BaseSpec(model="nobody/nothing-here"))


def test_what_gguf_cant_express_is_said(stand_in: Path) -> None:
    config = json.loads((stand_in / "config.json").read_text("utf-8"))
    rope = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}
    (stand_in / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}), "utf-8")
    assert "yarn" in gguf_refusal(know_base(BaseSpec(model=str(stand_in))))


def test_a_tokenizer_that_llama_cpp_does_not_know_is_said(tmp_path: Path, tiny_folder: TinyFolder) -> None:
    shutil.copytree(tiny_folder("llama"), tmp_path / "base")
    file = tmp_path / "base" / "tokenizer.json"
    spec = json.loads(file.read_text("utf-8"))
    spec["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "x"},
        "behavior": "Isolated",
        "invert": False,
    }
    file.write_text(json.dumps(spec), "utf-8")
    assert gguf_refusal(know_base(BaseSpec(model=str(tmp_path / "base")))) != ""
