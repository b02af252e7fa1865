"""A process of the package's own finds the package, and nothing that lies where the user works."""

import subprocess
from pathlib import Path

import pytest

from lora_kit.own_process import own_command, own_environment


def test_the_package_is_found_and_the_folder_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(77)")
    (tmp_path / "lora_kit").mkdir()
    (tmp_path / "lora_kit/__init__.py").write_text("raise SystemExit(78)")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = subprocess.run(
        own_command("lora_kit", "--version"),
        cwd=tmp_path,
        env=own_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lora_kit ")


def test_the_users_path_stays_behind_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    changed = own_environment(NO_COLOR="1")
    assert changed["PYTHONPATH"].endswith("/mine")
    assert Path(changed["PYTHONPATH"].split(":")[0], "lora_kit").is_dir()
    assert changed["NO_COLOR"] == "1"
