"""A small run and a small checkpoint, made in microseconds."""

import os

import pytest
import torch

from lora_kit.artifacts.checkpoint import CheckpointState
from lora_kit.artifacts.run_dir import open_run

IDENTITY = {
    "training_fingerprint": "a" * 64,
    "data_fingerprint": "b" * 64,
    "base_fingerprint": "c" * 64,
    "threads": "1",
}


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """Waiting for the disk proves nothing here; test_commit checks that it is asked for."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def identity():
    return dict(IDENTITY)


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path / "run")


@pytest.fixture
def make_state():
    def make(step: int, **changes) -> CheckpointState:
        fields = {
            "step": step,
            "adapter": {"lora_A": torch.full((2, 3), float(step)), "lora_B": torch.zeros(3, 2)},
            "optimizer": {"exp_avg.lora_A": torch.ones(2, 3), "random": torch.arange(8, dtype=torch.uint8)},
            "progress": {"epoch": 1, "offset": 10 * step, "best": {"step": 1, "loss": 0.1 + 0.2}},
            "identity": dict(IDENTITY),
        }
        return CheckpointState(**{**fields, **changes})

    return make
