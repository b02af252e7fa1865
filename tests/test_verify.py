"""`lora-kit verify`: an honest run passes, and each way of tampering is caught."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lora_kit import train_run
from lora_kit.artifacts.manifest import file_sha256, seal
from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.cli.app import run


@pytest.fixture
def finished(tiny_recipe: Callable[..., Path], tmp_path: Path) -> Path:
    recipe = tiny_recipe(train={"steps": 5, "save_every": 2, "validate_every": 2})
    assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def verify(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run(["verify", str(folder), *options])
    told = capsys.readouterr()
    return code, told.out + told.err


@pytest.mark.fault("P15")
def test_an_honest_run_passes_and_is_not_changed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {
        path: file_sha256(path) for path in finished.rglob("*") if path.is_file() and path.name != ".lock"
    }
    code, told = verify(finished, capsys, "--json")
    assert code == 0, told
    found = json.loads(told[: told.rindex("}") + 1])
    assert [check["holds"] for check in found["checks"]] == [True] * 5
    assert found["not_replayed"] is None
    assert "1 steps from step 4: the same adapter and the same log" in found["checks"][-1]["found"]
    assert {path: file_sha256(path) for path in before} == before


@pytest.mark.fault("P15")
def test_a_changed_byte_of_a_checkpoint(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = finished / "checkpoints/step-000004/optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    code, told = verify(finished, capsys)
    assert code == 4
    assert "step-000004: optimizer.safetensors: sha256 differs" in told


def edit_log(folder: Path, line: int) -> None:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[line] = json.dumps(json.loads(lines[line]) | {"loss": 0.125})
    (folder / "metrics.jsonl").write_text("".join(text + "\n" for text in lines))


def forge(folder: Path, **changes: object) -> None:
    """Put new content into the adapter's provenance, with its seal made anew."""
    file = folder / "adapter/lora_kit.json"
    provenance = {key: value for key, value in json.loads(file.read_text()).items() if key != "sha256"}
    file.write_text(json.dumps(seal(provenance | changes)))


@pytest.mark.parametrize("line", [0, 4])
@pytest.mark.fault("P15")
def test_an_edited_line_of_the_log(finished: Path, capsys: pytest.CaptureFixture[str], line: int) -> None:
    edit_log(finished, line)
    code, told = verify(finished, capsys)
    assert code == 4
    assert "metrics.jsonl: was changed after the adapter was saved" in told


def test_a_log_that_was_edited_with_its_hash(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_log(finished, 4)
    forge(finished, metrics_digest=stable_digest(finished / "metrics.jsonl"))
    assert verify(finished, capsys, "--no-replay")[0] == 0
    code, told = verify(finished, capsys)
    assert code == 4
    assert "the log comes out otherwise" in told


def test_other_rows(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = finished.parent / "rows.jsonl"
    rows.write_text(rows.read_text().replace("a", "b", 1))
    code, told = verify(finished, capsys)
    assert code == 4
    assert "rows: " in told
    assert "when it was trained" in told


@pytest.mark.fault("P15")
def test_another_adapter_put_in_place(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = finished / "adapter/adapter_model.safetensors"
    tensors = {name: tensor * 1.5 for name, tensor in load_file(weights).items()}
    save_file(tensors, weights)
    code, told = verify(finished, capsys)
    assert (code, "adapter_model.safetensors: sha256 differs" in told) == (4, True)
    files = json.loads((finished / "adapter/lora_kit.json").read_text())["files"]
    forge(finished, files=files | {weights.name: file_sha256(weights)})
    code, told = verify(finished, capsys)
    assert (code, "is not that of step" in told) == (4, True)


def test_on_another_machine_no_step_can_be_trained_again(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_run, "runtime_identity", lambda: {"versions": "x", "threads": "99"})
    code, told = verify(finished, capsys)
    assert code == 7
    assert "no step was trained again: was 1 when" in told or "when the checkpoint was saved" in told
    assert verify(finished, capsys, "--no-replay")[0] == 0


def test_a_run_that_is_not_finished(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(tmp_path, capsys)[0] == 2
    recipe = tiny_recipe(train={"steps": 2})
    with pytest.MonkeyPatch.context() as broken:
        broken.setenv("LORA_KIT_FAILPOINT", "directory.before_manifest=enospc")
        assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 5
    code, told = verify(tmp_path / "run", capsys)
    assert (code, "the run is not finished" in told) == (2, True)
