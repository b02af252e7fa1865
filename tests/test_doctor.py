import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lora_kit import doctor
from lora_kit.cli.app import run


def by_area() -> dict[str, doctor.Finding]:
    return {finding.area: finding for finding in doctor.examine()}


def test_a_sound_machine_has_nothing_broken(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "not yet" / "there"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run(["doctor", "--json"]) == 0
    out = capsys.readouterr().out
    found = {one["area"]: one for one in json.loads(out)}
    assert {"python", "torch", "peft", "processor", "gpu", "memory", "runs", "4-bit"} <= set(found)
    assert {one["status"] for one in found.values()} <= {"ok", "note"}
    assert "nf4 works" in found["4-bit"]["found"]
    assert str(tmp_path) in found["cache"]["found"]
    assert not (tmp_path / "not yet").exists()
    assert "hf_secret" not in out


def test_a_missing_and_a_wrong_library_are_named_with_their_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    true_version = doctor.version

    def version(name: str) -> str:
        if name == "gguf":
            raise doctor.PackageNotFoundError(name)
        return "0.1" if name == "peft" else true_version(name)

    monkeypatch.setattr(doctor, "version", version)
    found = by_area()
    assert (found["gguf"].status, found["peft"].status) == ("broken", "broken")
    assert found["peft"].found.startswith("0.1, and lora_kit needs ")
    assert found["gguf"].cure.startswith("pip install 'gguf")
    assert run(["doctor"]) == 5
    told = capsys.readouterr()
    assert "pip install 'peft" in told.out
    assert "several problems" in told.err


def test_a_place_that_can_not_be_written_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "file"))
    cache = by_area()["cache"]
    assert cache.status == "broken"
    assert "LORA_KIT_CACHE" in cache.cure


def test_little_room_and_little_memory_are_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_bytes", lambda _: 10**6)
    monkeypatch.setattr(
        doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9, total=4 * 10**9)
    )
    found = by_area()
    assert (found["runs"].status, found["memory"].status) == ("note", "note")
    assert "1.0 GB free of 4.0 GB" in found["memory"].found


def test_a_gpu_beside_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    assert by_area()["gpu"].cure == doctor.GET_TORCH


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 999)
    assert "OMP_NUM_THREADS" in by_area()["processor"].cure


def test_a_look_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("libcuda.so is not there")

    monkeypatch.setattr("bitsandbytes.nn.Linear4bit", broken)
    found = by_area()["four bit"]
    assert (found.status, found.found) == ("broken", "OSError: libcuda.so is not there")
