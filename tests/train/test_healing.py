"""An allocation fails: the same step is made again, the adapter is the same, and the run tells."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.errors import InterruptedRunError, MachineError
from lora_kit.recipe.load import load_recipe
from lora_kit.report.write import write_report
from lora_kit.train import step as step_module
from lora_kit.train.observe import Silent, StepRecord
from lora_kit.train_run import train_recipe
from lora_kit.verify import verify_run

TinyRecipe = Callable[..., Path]
CPU_ERROR = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
)
ERRORS = {
    "cpu": RuntimeError(CPU_ERROR),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "python": MemoryError(),
}


class Notes(Silent):
    """Keeps what was noted; may stop the run after a step."""

    def __init__(self, stop_after: int = 0) -> None:
        self.noted_texts: list[str] = []
        self.records: list[StepRecord] = []
        self.stop_after = stop_after

    def noted(self, text: str) -> None:
        self.noted_texts.append(text)

    def stepped(self, record: StepRecord) -> None:
        self.records.append(record)
        if record.step == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)


class Failures:
    """Lets micro-batches above a size fail in the forward or the backward pass, within one step.

    ``times`` is how often; the step is told by the observer's count.
    """

    def __init__(self, error: BaseException, *, step: int, times: int = 1, where: str = "backward") -> None:
        self.error, self.step, self.left, self.where = error, step, times, where
        self.observer = Notes()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        true_sum, true_nats = step_module.sum_nats, step_module.example_nats

        def due() -> bool:
            training = self.where != "validation"
            now = len(self.observer.records) + 1 == self.step
            if now and training and self.left:
                self.left -= 1
                return True
            return False

        def sum_nats(model: Any, batch: Any) -> Any:
            loss = true_sum(model, batch)
            if not due():
                return loss
            if self.where == "forward":
                raise self.error
            loss.nats.register_hook(self._raise)
            return loss

        def example_nats(model: Any, batch: Any) -> Any:
            if self.where == "validation" and len(self.observer.records) + 1 == self.step and self.left:
                self.left -= 1
                raise self.error
            return true_nats(model, batch)

        monkeypatch.setattr(step_module, "sum_nats", sum_nats)
        monkeypatch.setattr(step_module, "example_nats", example_nats)

    def _raise(self, _: torch.Tensor) -> None:
        raise self.error


@pytest.fixture
def steady(tiny_recipe: TinyRecipe) -> Path:
    """A recipe without dropout, whose draws depend on the split."""
    return tiny_recipe(lora={"dropout": 0.0}, train={"learning_rate": 1e-3, "validate_every": 2})


def train(recipe: Path, run: Path, *overrides: str, observer: Silent | None = None) -> dict[str, Any]:
    return train_recipe(load_recipe(recipe, overrides), run, observer or Silent())


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter/adapter_model.safetensors")


def digests(run: Path) -> dict[str, str]:
    files = ["adapter/adapter_model.safetensors", "checkpoints/step-000006/optimizer.safetensors"]
    hashes = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in files}
    state = (run / "checkpoints/step-000006/state.json").read_text()
    return hashes | {"metrics": stable_digest(run / "metrics.jsonl"), "state": state}


def healed(recipe: Path, run: Path, monkeypatch: pytest.MonkeyPatch, failures: Failures, *more: str) -> None:
    with monkeypatch.context() as patch:
        failures.install(patch)
        train(recipe, run, *more, observer=failures.observer)
    assert failures.left == 0


@pytest.mark.parametrize(
    ("kind", "where"), [("cpu", "forward"), ("cuda", "backward"), ("python", "backward")]
)
@pytest.mark.fault("D13")
def test_a_failed_allocation_at_step_3_gives_the_same_adapter_and_the_report_tells(
    steady: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, where: str
) -> None:
    train(steady, tmp_path / "plain")
    failures = Failures(ERRORS[kind], step=3, where=where)
    healed(steady, tmp_path / "healed", monkeypatch, failures)
    plain, mended = adapter(tmp_path / "plain"), adapter(tmp_path / "healed")
    difference = max(float((plain[name] - mended[name]).abs().max()) for name in plain)
    assert 0 < difference < 1e-6  # another split, which rounds otherwise
    [note] = failures.observer.noted_texts
    assert note.startswith("step 3: out of memory in training with 1024 tokens at once")
    lines = [json.loads(line) for line in (tmp_path / "healed/metrics.jsonl").read_text().splitlines()]
    tokens = lines[2]["lowered_to"]
    assert 0 < tokens < lines[2]["total_tokens"]
    assert all("lowered_to" not in line for line in lines[:2] + lines[3:])
    write_report(RunDir(tmp_path / "healed"))
    for page in ("report.html", "report.md"):
        text = (tmp_path / "healed" / page).read_text()
        assert f"step 3, training: 1,024 tokens at once did not fit; repeated with {tokens}" in text


@pytest.mark.fault("D13")
def test_where_the_split_stays_the_adapter_is_the_same_to_the_bit(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are alone already can't be split: with dropout too, the repeated step is the step."""
    recipe = tiny_recipe(train={"micro_batch_tokens": 8})
    train(recipe, tmp_path / "plain")
    healed(recipe, tmp_path / "healed", monkeypatch, Failures(ERRORS["cpu"], step=3))
    plain, mended = adapter(tmp_path / "plain"), adapter(tmp_path / "healed")
    assert all(torch.equal(plain[name], mended[name]) for name in plain)


@pytest.fixture(scope="module")
def healed_run(
    recipe_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, int]:
    """A recipe with dropout, its run that was healed in step 3 and never stopped, and the turn of the write
    that lowered its budget."""
    home = tmp_path_factory.mktemp("healed")
    recipe = recipe_in(home)
    with pytest.MonkeyPatch.context() as patch:
        turn = count_of_writes(recipe, home / "healed", patch)
    return recipe, home / "healed", turn


def test_stopped_after_healing_and_resumed_equals_the_healed_run(
    healed_run: tuple[Path, Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, unbroken, _ = healed_run
    failures = Failures(ERRORS["cpu"], step=3)
    failures.observer = Notes(stop_after=4)
    with pytest.raises(InterruptedRunError):
        healed(recipe, tmp_path / "cut", monkeypatch, failures)
    train(recipe, tmp_path / "cut")
    assert digests(tmp_path / "cut") == digests(unbroken)


@pytest.mark.parametrize("moment", ["after", "before"])
def test_lost_between_healing_and_the_next_checkpoint_equals_the_healed_run(
    healed_run: tuple[Path, Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Cut in the healed step, once the new budget is on disk; or before, when the failure comes again."""
    recipe, unbroken, turn = healed_run
    failures = Failures(ERRORS["cpu"], step=3)
    point = "file.after_rename" if moment == "after" else "file.after_write"
    monkeypatch.setenv("LORA_KIT_FAILPOINT", f"{point}@{turn}=raise")
    with pytest.raises(RuntimeError, match="failpoint"):
        healed(recipe, tmp_path / "cut", monkeypatch, failures)
    monkeypatch.delenv("LORA_KIT_FAILPOINT")
    assert (tmp_path / "cut/token_budget.json").exists() == (moment == "after")
    again = Failures(ERRORS["cpu"], step=1)  # resumed after step 2, so that step 3 is its first
    again.left = int(moment == "before")
    healed(recipe, tmp_path / "cut", monkeypatch, again)
    assert digests(tmp_path / "cut") == digests(unbroken)


def count_of_writes(recipe: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many files a run writes until its budget falls, that one included."""
    from lora_kit.artifacts import commit

    seen: list[str] = []
    with monkeypatch.context() as patch:
        true_failpoint = commit.failpoint
        patch.setattr(commit, "failpoint", lambda name: (seen.append(name), true_failpoint(name))[0])
        failures = Failures(ERRORS["cpu"], step=3)
        failures.observer.noted = lambda _: seen.append("noted")  # type: ignore[method-assign]
        healed(recipe, run, monkeypatch, failures)
    return seen[: seen.index("noted")].count("file.after_rename")


def test_a_healed_run_is_verified(healed_run: tuple[Path, Path, int]) -> None:
    audit = verify_run(healed_run[1], Silent())
    assert not audit.problems
    assert not audit.not_replayed


def test_validation_heals_and_the_step_before_it_stays(
    steady: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(steady, tmp_path / "plain")
    failures = Failures(ERRORS["cpu"], step=2, where="validation")
    healed(steady, tmp_path / "healed", monkeypatch, failures)
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("plain", "healed")
    ]
    assert lines[0][1]["grad_norm"] == lines[1][1]["grad_norm"]
    assert lines[1][1]["validation_loss"] == pytest.approx(lines[0][1]["validation_loss"], rel=1e-5)
    assert "in validation" in failures.observer.noted_texts[0]


@pytest.mark.fault("D13")
def test_a_row_that_does_not_fit_alone_is_named_and_the_last_good_weights_are_committed(
    steady: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(steady, tmp_path / "good", "train.steps=3", "train.schedule=constant", "train.keep=last")
    failures = Failures(ERRORS["cpu"], step=4, times=10**6)
    with pytest.raises(
        MachineError, match=r"step 4: .*row .*rows\.jsonl:\d+ \(\d+ tokens\) does not"
    ) as error:
        healed(steady, tmp_path / "run", monkeypatch, failures, "train.schedule=constant")
    assert error.value.exit_code == 5
    assert (tmp_path / "run/checkpoints/step-000003").is_dir()
    good = adapter(tmp_path / "good")
    kept = load_file(tmp_path / "run/last_good/adapter_model.safetensors")
    assert all(torch.equal(good[name], kept[name]) for name in good)
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "running"
