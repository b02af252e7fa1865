"""The audit before the first step: what it catches, what it costs training (nothing), when it is made."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from lora_kit import train_run
from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.audit import room
from lora_kit.audit.gradients import few_rows
from lora_kit.audit.perturbed import perturbed
from lora_kit.audit.room import Need, check_room, check_saving
from lora_kit.cli.app import run
from lora_kit.data.types import Example
from lora_kit.model import forward
from lora_kit.model.adapter_inject import adapter_parameters
from lora_kit.recipe.load import load_recipe
from lora_kit.train.observe import Silent
from lora_kit.train_run import train_recipe

TinyRecipe = Callable[..., Path]
NAMES = ["gradients", "rows apart", "end marks", "dry save", "disk and memory"]
ON = {"audit": "on"}


def digests(folder: Path) -> dict[str, str]:
    files = ("adapter/adapter_model.safetensors", "checkpoints/step-000006/optimizer.safetensors")
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    return {**hashes, "metrics": stable_digest(folder / "metrics.jsonl")}


def findings(folder: Path) -> dict[str, dict[str, str]]:
    start = json.loads((folder / "audit.json").read_text())["start"]
    return {finding["name"]: finding for finding in start["findings"]}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"lora": {"dropout": 0.0}, "data": {"system": "Answer in one short sentence."}}),
        ("llama", {"quantization": {"method": "nf4"}}),
        ("llama", {"base": {"dtype": "bfloat16"}}),
        ("llama", {"quantization": {"method": "nf4", "compute_dtype": "bfloat16"}}),
        ("gpt_neox", {"engine": {"memory": "low"}}),
        ("llama", {"lora": {"layers": "last-1"}, "engine": {"trunk_cache": "on"}}),
        ("bloom", {}),
    ],
    ids=["llama", "shared", "nf4", "bf16", "nf4-bf16", "neox-low", "trunk", "bloom"],
)
def test_training_after_it_is_the_same_bit_for_bit(
    tiny_recipe: TinyRecipe, tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    recipe = tiny_recipe(family, **changes)
    for audit in ("off", "on"):
        train_recipe(load_recipe(recipe, [f"engine.audit={audit}"]), tmp_path / audit, Silent())
    assert digests(tmp_path / "on") == digests(tmp_path / "off")
    found = findings(tmp_path / "on")
    assert [*found] == NAMES
    assert {finding["level"] for finding in found.values()} == {"passed"}, found
    assert not (tmp_path / "off/audit.json").exists()
    assert [*(tmp_path / "on/checkpoints").glob(".*")] == []


def adapted(recipe: Path) -> PeftModel:
    from lora_kit.model.adapter_inject import add_adapter
    from lora_kit.model.base import find_base
    from lora_kit.model.load import load_model

    loaded = load_recipe(recipe)
    files = find_base(loaded.base)
    model = load_model(files, dtype="float32", quantization=loaded.quantization, device="cpu")
    return add_adapter(model, loaded.lora, files.family, seed=1)


def test_what_is_perturbed_comes_back(tiny_recipe: TinyRecipe) -> None:
    model = adapted(tiny_recipe()).train()
    model.get_base_model().lm_head.eval()
    parameters = adapter_parameters(model)
    first = next(iter(parameters.values()))
    first.grad = torch.ones_like(first)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with perturbed(model):
        assert all(parameter.any() for parameter in parameters.values())
        assert first.grad is None
        torch.rand(5)
        model.eval()
        next(iter(parameters.values())).grad = torch.zeros_like(first)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(before[name], parameter) for name, parameter in parameters.items())
    assert first.grad is not None
    assert first.grad.sum() == first.numel()
    assert model.training
    assert not model.get_base_model().lm_head.training


def detached(model: PeftModel) -> None:
    next(p for name, p in model.named_parameters() if "lora_A" in name).requires_grad_(requires_grad=False)


def frozen(model: PeftModel) -> None:
    model.requires_grad_(requires_grad=False)


def never_reached(model: PeftModel) -> None:
    layer = next(m for name, m in model.named_modules() if name.endswith("layers.1.mlp.down_proj"))
    layer.forward = layer.base_layer.forward
    layer.lora_dropout["default"] = torch.nn.Dropout1d()  # no longer what our own decoder computes


@pytest.mark.parametrize("fault", [detached, frozen, never_reached])
@pytest.mark.fault("P16")
def test_a_matrix_without_gradient_ends_the_run(
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[[PeftModel], None],
) -> None:
    true_add = train_run.add_adapter

    def add(*arguments: Any, **options: Any) -> PeftModel:
        model = true_add(*arguments, **options)
        fault(model)
        return model

    monkeypatch.setattr(train_run, "add_adapter", add)
    recipe = tiny_recipe(engine=ON)
    assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 4
    told = capsys.readouterr().err
    assert "audit: gradients: lora.targets: none for" in told
    assert "of 28 trained matrices: base_model.model.model.layers." in told
    assert findings(tmp_path / "run")["gradients"]["level"] == "failed"
    assert not (tmp_path / "run/adapter").exists()
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize("shares", [False, True], ids=["packed", "shared"])
@pytest.mark.fault("P5", "P16")
def test_rows_that_see_each_other_end_the_run(
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shares: bool,
) -> None:
    true_segments = forward.segment_arguments

    def joined(segments: Any, device: Any, parents: Any = ()) -> Any:
        """All of a row sees what is before it, whichever row that belongs to."""
        return true_segments(segments, device, tuple(range(-1, len(segments) - 1)))

    monkeypatch.setattr(forward, "segment_arguments", joined)
    recipe = tiny_recipe(
        lora={"dropout": 0.0 if shares else 0.1}, data={"system": "Be brief, and be kind."}, engine=ON
    )
    assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 4
    assert "audit: rows apart: base.model: rows see each other: 2 rows packed" in capsys.readouterr().err
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.fault("D7")
def test_a_disk_that_is_full_is_noticed_before_the_first_step(
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LORA_KIT_FAILPOINT", "directory.before_manifest=enospc")
    recipe = tiny_recipe(engine=ON)
    assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 5
    told = capsys.readouterr().err
    assert "audit: dry save: no space left on device" in told
    assert "4 passed, 1 failed" in told
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_a_dry_save_that_reads_back_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_kit.artifacts.run_dir import open_run

    folder = open_run(tmp_path / "run")
    need = Need(3 * room.PIECE + 5, 2, 0, 0, 0)
    assert check_saving(folder, need).level == "passed"
    assert [*folder.checkpoints.iterdir()] == []
    monkeypatch.setattr(room, "verify_dir", lambda _: ["bytes: sha256 differs"])
    found = check_saving(folder, need)
    assert (found.level, found.error.exit_code) == ("failed", 5)


@pytest.mark.parametrize(
    ("need", "level", "text"),
    [
        (Need(10, 3, 10, 5, 10), "passed", "30 bytes of checkpoints; 10 bytes of memory free for at most 5"),
        (Need(10, 3, 100, 0, 10), "warning", "but not for the merged model (100 bytes)"),
        (Need(10, 3, 0, 11, 10), "warning", "only 10 bytes of memory free for at most 11 bytes"),
        (Need(50, 3, 0, 0, 10), "failed", "100 bytes free on disk for 150 bytes of checkpoints"),
    ],
    ids=["enough", "merge", "memory", "disk"],
)
def test_disk_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: Need, level: str, text: str
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda _: 100)
    found = check_room(RunDir(tmp_path), need)
    assert found.level == level
    assert text in found.found


def row(*ids: int, trained: int = 2) -> Example:
    flags = tuple(at >= len(ids) - trained for at in range(len(ids)))
    return Example(ids, flags, f"rows.jsonl:{ids[0]}", "")


def test_few_rows_are_short_and_begin_alike() -> None:
    alike = [row(9, 9, 9, 9, 1), row(9, 9, 9, 9, 2)]
    others = [row(number, 5, 6) for number in range(40)]
    assert few_rows([row(*range(100)), *others[:25], *alike, *others[25:28]]) == alike
    long = [row(number, *range(100, 300), 7, trained=150) for number in range(9)]
    ends = [(number, *range(100, 107), *range(293, 300), 7) for number in range(2)]
    assert [one.input_ids for one in few_rows(long)] == ends
    assert few_rows(long)[0].trained == (False,) * 8 + (True,) * 8
    # Nothing behind the last trained token.
    masked = Example(tuple(range(50)), (False,) * 20 + (True,) * 2 + (False,) * 28, "rows.jsonl:1", "")
    assert few_rows([masked])[0].input_ids == (*range(8), *range(14, 22))
    assert few_rows([row(1, 2)]) == []  # its only trained token stands behind one other
    assert few_rows([row(1, 2, 3)]) == [row(1, 2, 3)]


def test_it_is_made_once(tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on from a checkpoint is not audited again; one without any is."""
    recipe, made = load_recipe(tiny_recipe(engine=ON)), []
    true_audit = train_run.audit_start
    monkeypatch.setattr(train_run, "audit_start", lambda *arguments: made.append(1) or true_audit(*arguments))
    for point in ("metrics.before_line@2=raise", "metrics.before_line@4=raise", ""):
        monkeypatch.setenv("LORA_KIT_FAILPOINT", point)
        if point:
            with pytest.raises(RuntimeError, match="failpoint"):
                train_recipe(recipe, tmp_path / "run", Silent())
        else:
            train_recipe(recipe, tmp_path / "run", Silent())
    assert len(made) == 2
