"""An adapter folder: PEFT's names, our provenance, no damage unnoticed."""

import json
import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from lora_kit.artifacts.adapter import read_adapter, save_adapter
from lora_kit.errors import MachineError, ModelError

TENSORS = {
    "base_model.model.q_proj.lora_A.weight": torch.ones(2, 4),
    "base_model.model.q_proj.lora_B.weight": torch.zeros(4, 2),
}
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
PROVENANCE = {"base": {"source": "a/b", "fingerprint": "f" * 64}, "system": None, "step": 7}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    files = {
        "README.md": b"# card\n",
        "recipe.yaml": b"name: x\n",
        "tokenizer.json": tmp_path / "tokenizer.json",
    }
    save_adapter(tmp_path / "adapter", tensors=TENSORS, config=CONFIG, provenance=PROVENANCE, files=files)
    return tmp_path / "adapter"


def test_what_is_saved_is_read(folder):
    adapter = read_adapter(folder)
    assert adapter.config == CONFIG
    assert {key: adapter.provenance[key] for key in PROVENANCE} == PROVENANCE
    assert adapter.provenance["format_version"] == 1
    assert set(adapter.provenance["files"]) == {path.name for path in folder.iterdir()} - {"lora_kit.json"}
    assert {name: tensor.tolist() for name, tensor in adapter.tensors().items()} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }


def test_saving_again_gives_the_same_bytes_and_replaces(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "old.txt").write_text("")
    files = {name: before[name] for name in ("README.md", "recipe.yaml", "tokenizer.json")}
    save_adapter(folder, tensors=TENSORS, config=CONFIG, provenance=PROVENANCE, files=files)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "name",
    ["adapter_config.json", "adapter_model.safetensors", "lora_kit.json", "recipe.yaml", "tokenizer.json"],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "bit flip"])
def test_no_damage_goes_unnoticed(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"empty": b"", "truncated": content[:middle], "bit flip": flipped}[damage])
    if (name, damage) == ("lora_kit.json", "missing"):
        assert (
            read_adapter(folder).provenance == {}
        )  # is then a folder of PEFT's, without a base's fingerprint
    else:
        with pytest.raises(ModelError, match=name) as caught:
            read_adapter(folder)
        assert caught.value.exit_code == 4


def test_the_card_is_for_people_to_edit(folder):
    (folder / "README.md").write_text("my own words")
    (folder / ".gitattributes").write_text("")
    assert read_adapter(folder).config == CONFIG


def test_all_damage_is_named_at_once(folder):
    (folder / "recipe.yaml").unlink()
    (folder / "tokenizer.json").write_text("[]")
    with pytest.raises(ModelError) as caught:
        read_adapter(folder)
    assert len(caught.value.problems) == 2


def test_provenance_can_not_be_edited_unnoticed(folder):
    provenance = json.loads((folder / "lora_kit.json").read_text())
    (folder / "lora_kit.json").write_text(json.dumps({**provenance, "system": "be evil"}))
    with pytest.raises(ModelError, match=r"lora_kit\.json: was changed after it was written"):
        read_adapter(folder)


def test_a_folder_of_peft_alone_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    adapter = read_adapter(tmp_path)
    assert adapter.provenance == {}
    assert adapter.tensors().keys() == TENSORS.keys()


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    save_file({"x": torch.tensor([float("nan")])}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds NaN or infinity in x"):
        read_adapter(tmp_path).tensors()


@pytest.mark.parametrize("beside", [True, False])
def test_pickled_weights_are_refused_even_beside_good_ones(folder, beside):
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    if not beside:
        (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="pickled weights can run code and are never read; convert"):
        read_adapter(folder)


def test_what_is_no_adapter_is_said_so(tmp_path):
    with pytest.raises(ModelError, match="no such adapter folder"):
        read_adapter(tmp_path / "x")
    with pytest.raises(ModelError, match=r"adapter_config\.json and adapter_model\.safetensors missing"):
        read_adapter(tmp_path)


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        save_adapter(tmp_path / "a", tensors=TENSORS, config={}, provenance={}, files={"x": b""})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").iterdir()} == {0o644}


@pytest.mark.parametrize("failure", ["adapter.after_weights=enospc", "directory.after_old=enospc"])
def test_a_failed_save_keeps_the_old_adapter(folder, monkeypatch, failure):
    monkeypatch.setenv("LORA_KIT_FAILPOINT", failure)
    with pytest.raises(MachineError, match="no space left on device"):
        save_adapter(folder, tensors={}, config={}, provenance={}, files={})
    assert read_adapter(folder).config == CONFIG
    assert {path.name for path in folder.parent.iterdir()} == {"adapter", "tokenizer.json"}


@pytest.mark.parametrize("name", ["lora_kit.json", "adapter_config.json", "../x", "a/b"])
def test_names_that_are_ours_or_lead_away_are_our_mistake(tmp_path, name):
    with pytest.raises(AssertionError):
        save_adapter(tmp_path / "a", tensors={}, config={}, provenance={}, files={name: b""})
    assert not list(tmp_path.iterdir())
