"""A base is found from a folder, the hub or a package; the hub and packages have tests of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from lora_kit.errors import ModelError
from lora_kit.model.base import GIVEN_NAME, find_base
from lora_kit.recipe.schema import BaseSpec


def test_a_folder(tiny_any: Path, no_sockets: None) -> None:
    files = find_base(BaseSpec(model=str(tiny_any)))
    assert files.source == str(tiny_any)
    assert files.folder == tiny_any
    assert files.revision is None
    assert len(files.fingerprint) == 64
    assert files.vocab_size == 300
    assert files.config["model_type"] == files.family.name


def test_the_same_model_elsewhere_has_the_same_fingerprint(tiny_llama: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    one, two = (find_base(BaseSpec(model=str(folder))) for folder in (tiny_llama, copy))
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(
    "name", ["no model", "../nowhere", "a/b/c", "https://x.y/z", "-x/y", "a/b;c", "~nobody/x"]
)
def test_a_name_that_is_nothing(name: str) -> None:
    with pytest.raises(ModelError, match="no such model") as caught:
        find_base(BaseSpec(model=name))
    assert caught.value.problems[0].key == "base.model"


def test_messages_name_what_named_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder; correct the model's name"):
        find_base(BaseSpec(model=str(tmp_path / "nowhere")), key=GIVEN_NAME)


def test_a_file_is_no_folder(tmp_path: Path, no_sockets: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="a file, not a model's folder"):
        find_base(BaseSpec(model=str(tmp_path / "model.gguf")))
    monkeypatch.chdir(tmp_path)  # where its name could be one of the hub
    with pytest.raises(ModelError, match="a file, not a model's folder"):
        find_base(BaseSpec(model="model.gguf"))
    with pytest.raises(ModelError, match="no such model"):
        find_base(BaseSpec(model="other.gguf"))


def test_a_folder_at_home(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_llama.parent))
    assert find_base(BaseSpec(model=f"~/{tiny_llama.name}")).folder == tiny_llama


def test_an_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        find_base(BaseSpec(model=str(tmp_path / "nowhere")))


def test_only_the_hub_has_revisions(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match=r"base\.revision"):
        find_base(BaseSpec(model=str(tiny_llama), revision="main"))


def test_finding_a_folder_does_not_import_torch(tiny_llama: Path) -> None:
    code = (
        "import sys; from lora_kit.model.base import find_base; from lora_kit.recipe.schema import BaseSpec;"
        f"find_base(BaseSpec(model={str(tiny_llama)!r}));"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
