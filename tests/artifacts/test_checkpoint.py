"""A checkpoint comes back bit for bit, or not at all and with a reason."""

import os

import pytest
import torch

from lora_kit.artifacts.checkpoint import (
    newest_valid,
    read_checkpoint,
    rotate,
    save_checkpoint,
    saved_steps,
)
from lora_kit.artifacts.manifest import MANIFEST, file_sha256, read_manifest
from lora_kit.errors import DataError, DivergedError, MachineError, ModelError, RecipeError


def test_a_saved_state_comes_back_exactly(run, make_state, identity):
    saved = make_state(123)
    assert save_checkpoint(run, saved) == run.checkpoints / "step-000123"
    read, skipped = newest_valid(run, identity)
    assert skipped == []
    assert read.progress == saved.progress
    assert (read.step, read.identity, read.inexact) == (123, identity, ())
    for kind in ("adapter", "optimizer"):
        assert getattr(read, kind).keys() == getattr(saved, kind).keys()
        assert all(
            torch.equal(tensor, getattr(saved, kind)[name]) for name, tensor in getattr(read, kind).items()
        )


def test_the_same_state_gives_the_same_bytes(run, make_state):
    first = {path.name: file_sha256(path) for path in save_checkpoint(run, make_state(5)).iterdir()}
    second = {path.name: file_sha256(path) for path in save_checkpoint(run, make_state(5)).iterdir()}
    assert first == second
    assert set(first) == {"adapter.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}


def test_nothing_saved_is_a_start_from_the_beginning(run, identity):
    assert newest_valid(run, identity) == (None, [])
    run.checkpoints.rmdir()
    assert newest_valid(run, identity) == (None, [])


def test_newest_is_by_number_and_strangers_are_ignored(run, make_state, identity):
    for step in (999_999, 1_000_000):
        save_checkpoint(run, make_state(step))
    os.utime(run.checkpoints / "step-1000000", (0, 0))
    (run.checkpoints / "step-1000001").write_text("a file")
    for name in ("step-12", "step-9999999.bak", ".tmp-step-2000000-1", "notes"):
        (run.checkpoints / name).mkdir()
    assert saved_steps(run) == [999_999, 1_000_000]
    assert newest_valid(run, identity)[0].step == 1_000_000


def test_checkpoints_are_chained(run, make_state):
    first, second = (save_checkpoint(run, make_state(step)) for step in (1, 2))
    assert read_manifest(first)["identity"]["previous"] == ""
    assert read_manifest(second)["identity"]["previous"] == file_sha256(first / MANIFEST)


def test_a_save_drops_the_abandoned_future(run, make_state, identity):
    for step in (10, 20, 30):
        save_checkpoint(run, make_state(step))
    for step in (20, 30):
        (run.checkpoints / f"step-{step:06d}" / "state.json").unlink()
    state, skipped = newest_valid(run, identity)
    assert state.step == 10
    assert skipped == ["step-000030: state.json: is missing", "step-000020: state.json: is missing"]
    save_checkpoint(run, make_state(20))
    rotate(run, keep=1, best_step=None)
    assert saved_steps(run) == [20]
    assert newest_valid(run, identity)[0].step == 20


@pytest.mark.parametrize("kind", ["adapter", "optimizer"])
@pytest.mark.fault("P8")
def test_a_nan_never_reaches_the_disk(run, make_state, kind):
    with pytest.raises(DivergedError, match=r"step 4: .* is not finite in x"):
        save_checkpoint(
            run, make_state(4, **{kind: {"ok": torch.ones(1), "x": torch.tensor([float("nan")])}})
        )
    assert saved_steps(run) == []


@pytest.mark.parametrize(
    ("key", "error", "cure"),
    [
        ("training_fingerprint", RecipeError, "undo the change in the recipe"),
        ("data_fingerprint", DataError, "put the data back"),
        ("base_fingerprint", ModelError, "use the base that the run began with"),
        ("encoder_fingerprint", ModelError, "tokenizer and template"),
        ("threads", MachineError, "--allow-inexact-resume"),
        ("torch", MachineError, "--allow-inexact-resume"),
    ],
)
@pytest.mark.fault("D14")
def test_a_whole_checkpoint_of_another_run_is_refused(run, make_state, identity, key, error, cure):
    save_checkpoint(run, make_state(1))
    save_checkpoint(run, make_state(2))
    with pytest.raises(error, match=cure) as caught:
        newest_valid(run, {**identity, key: "0" * 64})
    [problem] = caught.value.problems
    assert problem.key == key
    assert problem.where.endswith("step-000002")
    assert len(str(caught.value)) <= 300 + len(str(run.path))


def test_all_that_differs_is_named_at_once_the_gravest_first(run, make_state, identity):
    save_checkpoint(run, make_state(1))
    changed = {**identity, "threads": "2", "data_fingerprint": "x", "training_fingerprint": "y"}
    with pytest.raises(RecipeError) as caught:
        newest_valid(run, changed, allow_inexact=True)
    assert [problem.key for problem in caught.value.problems] == ["training_fingerprint", "data_fingerprint"]


def test_an_inexact_resume_marks_the_run_for_ever(run, make_state, identity):
    save_checkpoint(run, make_state(1))
    mark = "threads: was 1 when the checkpoint was saved, is 2 now"
    state, _ = newest_valid(run, {**identity, "threads": "2"}, allow_inexact=True)
    assert state.inexact == (mark,)
    save_checkpoint(run, make_state(2, identity={**identity, "threads": "2"}, inexact=state.inexact))
    again, _ = newest_valid(run, {**identity, "threads": "2"})
    assert again.inexact == (mark,)
    third, _ = newest_valid(run, {**identity, "threads": "3"}, allow_inexact=True)
    assert third.inexact == (mark, "threads: was 2 when the checkpoint was saved, is 3 now")


def test_rotation_keeps_the_newest_and_the_best(run, make_state):
    for step in range(1, 8):
        save_checkpoint(run, make_state(step))
        rotate(run, keep=2, best_step=min(step, 3))
    assert saved_steps(run) == [3, 6, 7]
    assert all(read_checkpoint(run, step).step == step for step in (3, 6, 7))
    rotate(run, keep=1, best_step=99)
    assert saved_steps(run) == [7]


def test_a_checkpoint_that_reads_back_differently_removes_nothing(run, make_state, monkeypatch):
    save_checkpoint(run, make_state(1))
    monkeypatch.setattr(
        "lora_kit.artifacts.checkpoint.verify_dir", lambda _: ["adapter.safetensors: sha256 differs"]
    )
    with pytest.raises(MachineError, match=r"reads back otherwise than written: adapter\.safetensors"):
        save_checkpoint(run, make_state(2))
    monkeypatch.undo()
    assert read_checkpoint(run, 1).step == 1


def test_reading_one_names_each_reason(run, make_state):
    folder = save_checkpoint(run, make_state(1))
    (folder / "state.json").unlink()
    (folder / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(ModelError) as caught:
        read_checkpoint(run, 1)
    assert [problem.found for problem in caught.value.problems] == [
        "adapter.safetensors: sha256 differs",
        "state.json: is missing",
    ]
    with pytest.raises(ModelError, match=r"manifest\.json: is missing"):
        read_checkpoint(run, 7)
