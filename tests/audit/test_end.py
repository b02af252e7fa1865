"""The audit of a finished adapter: an honest one passes, and each planted fault is caught and said."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lora_kit import pipeline
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.assemble import open_target
from lora_kit.audit import fresh, stopping
from lora_kit.audit.end import audit_end
from lora_kit.audit.end_mark import NAME as END_MARKS
from lora_kit.audit.end_mark import answer_spans, check_end_marks
from lora_kit.audit.findings import Audit, read_audit, read_parts
from lora_kit.audit.fresh import audit_run
from lora_kit.audit.held_out import NAME as RELOAD
from lora_kit.audit.stopping import NAME as STOPPING
from lora_kit.audit.stopping import Prompt, check_stopping, prompts_of
from lora_kit.audit.weights import NAME as DIFFERENCE
from lora_kit.audit.weights import layer_norms, singular_values
from lora_kit.cli.app import run
from lora_kit.data.template import NamedTemplate
from lora_kit.data.types import Example, Segment
from lora_kit.errors import IncompleteError, ModelError
from lora_kit.model.adapter_inject import first_value
from lora_kit.recipe.load import load_recipe
from lora_kit.report.write import write_report
from lora_kit.train.observe import Silent
from lora_kit.train_run import train_recipe

Spoiled = Callable[[Callable[[dict[str, Tensor]], None]], Path]
NAMES = [DIFFERENCE, END_MARKS, RELOAD, STOPPING]


def levels(audit: Audit) -> dict[str, str]:
    return {finding.name: finding.level for finding in audit.findings}


def told(audit: Audit, name: str) -> str:
    return next(str(finding.problem) for finding in audit.findings if finding.name == name)


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.fault("D15", "D21")
def test_an_honest_run_passes_in_a_process_of_its_own(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    command = ["train", str(tiny_recipe(engine={"audit": "on"})), "--run-dir", str(folder)]
    assert run(command) == 0
    said = capsys.readouterr()
    assert "audit: 5 checks passed in" in said.err
    assert "audit: loading it on its base" in said.err
    assert "adapter: " in said.out
    end = read_parts(RunDir(folder))["end"]
    found = {finding["name"]: finding for finding in end["findings"]}
    assert [*found] == NAMES
    assert [found[name]["level"] for name in NAMES[:3]] == ["passed"] * 3
    assert "what it was in training" in found[RELOAD]["found"]
    assert len(end["layers"]) == 14
    before = (folder / "audit.json").read_bytes()
    monkeypatch.setattr(fresh, "_in_fresh_process", lambda *_: pytest.fail("it was audited already"))
    assert run(command) == 0
    assert (folder / "audit.json").read_bytes() == before
    write_report(RunDir(folder))
    page = (folder / "report.html").read_text()
    assert '<section id="audit">' in page
    assert "norm of what the adapter adds" in page
    assert "| 1 | " in (folder / "report.md").read_text()


def zero(tensors: dict[str, Tensor], *names: str) -> None:
    for name, tensor in tensors.items():
        if ".lora_B." in name and (not names or any(part in name for part in names)):
            tensor.zero_()


def began(tensors: dict[str, Tensor], factor: float = 1.0) -> None:
    for name, tensor in tensors.items():
        if "layers.0.mlp.up_proj.lora_A" in name:
            tensor.copy_(factor * first_value(name, tensor, 0))


def moved(tensors: dict[str, Tensor]) -> None:
    next(iter(tensors.values())).mul_(1.05)


@pytest.mark.parametrize(
    ("spoil", "name", "text"),
    [
        (zero, DIFFERENCE, "what it adds is zero in every layer (B = 0): it is its base"),
        (
            lambda t: zero(t, "q_proj"),
            DIFFERENCE,
            "zero in 2 of 14 layers (B = 0): model.layers.0.self_attn.q",
        ),
        (began, DIFFERENCE, "A is as it began in 1 of 14 layers: model.layers.0.mlp.up_proj"),
        (moved, RELOAD, "when training ended"),
    ],
    ids=["b-zero", "no-gradient-b", "no-gradient-a", "other-weights"],
)
@pytest.mark.fault("P16")
def test_a_planted_fault_is_caught(
    spoiled: Spoiled, capsys: pytest.CaptureFixture[str], spoil: Any, name: str, text: str
) -> None:
    folder = spoiled(spoil)
    assert run(["audit", str(folder), "--json"]) == 4
    said = capsys.readouterr()
    assert f"audit: {name}: " in said.err
    assert text in said.err
    found = {finding["name"]: finding["level"] for finding in json.loads(said.out)["findings"]}
    assert found[name] == "failed"
    assert (folder / "adapter/adapter_model.safetensors").is_file()
    write_report(RunDir(folder))
    assert f"Audit, the adapter: {name}: " in (folder / "report.html").read_text()
    with pytest.raises(ModelError, match="audit: "):  # and again, without another look
        audit_run(RunDir(folder), Silent())


def test_decay_alone_is_no_learning(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    from lora_kit.artifacts.adapter import SavedAdapter
    from lora_kit.audit.weights import check_difference

    recipe = load_recipe(tiny_recipe(train={"weight_decay": 0.1}))
    train_recipe(recipe, tmp_path / "run", Silent())
    tensors = load_file(tmp_path / "run/adapter/adapter_model.safetensors")

    class Spoiled(SavedAdapter):
        def tensors(self) -> dict[str, Tensor]:
            return tensors

    config = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    adapter = Spoiled(tmp_path, config, {"step": 6})
    assert check_difference(adapter, layer_norms(adapter), recipe).level == "passed"
    began(tensors, 0.994)
    assert check_difference(adapter, layer_norms(adapter), recipe).level == "failed"


@pytest.mark.fault("B16", "P16")
def test_a_template_without_end_mark_is_caught_at_both_ends(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its answers end with a mark at which nobody stops."""
    true_answer, mark = NamedTemplate._answer, Segment("<|im_start|>", control=True, trained=True)
    monkeypatch.setattr(
        NamedTemplate, "_answer", lambda *args, **names: [*true_answer(*args, **names)[:2], mark]
    )
    recipe = tiny_recipe(data={"template": "alpaca"}, engine={"audit": "on"})
    assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 4
    said = capsys.readouterr().err
    assert "audit: end marks: data.template: only 0 of" in said
    assert "choose a template that writes the tokenizer's end-of-turn token or EOS" in said
    assert not (tmp_path / "run/metrics.jsonl").exists()
    train_recipe(load_recipe(recipe, ["engine.audit=off"]), tmp_path / "run", Silent())
    audit = audit_end(tmp_path / "run", Silent())
    assert levels(audit)[END_MARKS] == "failed"
    assert levels(audit)[STOPPING] == "warning"
    assert "there is no loss of its training" in told(audit, RELOAD)
    with pytest.raises(ModelError, match="audit: end marks"):
        audit.raise_if_failed()


@pytest.mark.parametrize(("bad", "level"), [(0, "passed"), (1, "warning"), (2, "failed")])
def test_most_answers_have_to_end(bad: int, level: str) -> None:
    rows = [Example((5, 9, 5, 9), (False, True, False, True), f"r:{n}", "") for n in range(60)]
    rows += [Example((5, 7, 5, 9), (False, True, False, True), f"bad:{n}", "") for n in range(bad)]
    tokenizer = SimpleNamespace(decode=lambda ids: f"<{ids[0]}>")
    found = check_end_marks(rows, SimpleNamespace(stop_ids=frozenset({9}), tokenizer=tokenizer))
    assert found.level == level
    assert ("bad:0" in found.found) == bool(bad)
    assert answer_spans(rows[0]) == [(1, 2), (3, 4)]


def test_an_adapter_by_itself_is_audited_as_far_as_it_goes(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", str(alone)]) == 0
    said = capsys.readouterr().out
    assert "skipped  end marks: its rows can't be read" in said
    assert "skipped  loads elsewhere: it loads; its rows can't be read" in said
    assert "answers ended within 64 tokens" in said
    assert "2 skipped" in said
    assert not (alone / "audit.json").exists()


def test_rows_that_were_changed_are_not_compared(finished: Path, tmp_path: Path) -> None:
    rows = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(rows.replace("fox", "ox"))
    audit = audit_end(finished, Silent())
    assert "its rows were changed" in told(audit, RELOAD)
    assert levels(audit)[RELOAD] == "skipped"


@pytest.mark.parametrize("end", ["is killed", "does not start"])
def test_a_process_that_ends_early_leaves_the_adapter(
    finished: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    word = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})" if end == "is killed" else "no such word"
    true_popen = fresh.subprocess.Popen
    monkeypatch.setattr(
        fresh.subprocess, "Popen", lambda command, **options: true_popen([command[0], "-c", word], **options)
    )
    with pytest.raises(IncompleteError, match=r"did not come to its end.*audit it with: lora-kit audit"):
        audit_run(RunDir(finished), Silent())
    assert (finished / "adapter/adapter_model.safetensors").is_file()


def test_a_run_with_a_failed_audit_ends_with_a_report(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: RunDir, __: Silent) -> None:
        raise ModelError("B = 0")

    monkeypatch.setattr(pipeline, "audit_run", fail)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(ModelError, match="B = 0"):
        pipeline.run_recipe(recipe, finished, Silent())
    assert (finished / "report.html").is_file()
    assert not (finished / "merged").exists()


def test_stopping(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_target(str(finished))
    every = frozenset(range(300))
    asked = [Prompt((5, 6, 7), 9), Prompt((5, 8), 4), Prompt(tuple(range(256)), 4)]
    found, numbers = check_stopping(opened.model, asked, every)
    assert numbers == {"prompts": 2, "stopped": 2, "most_tokens": 9}
    assert found.level == "passed"
    found, numbers = check_stopping(opened.model, asked, frozenset())
    assert (found.level, numbers["stopped"]) == ("warning", 0)
    begun = []
    true_start = stopping.start_decoding
    monkeypatch.setattr(stopping, "start_decoding", lambda *a, **b: begun.append(1) or true_start(*a, **b))
    found, numbers = check_stopping(opened.model, asked, frozenset(), most_seconds=0.0)
    assert begun == [1]  # the answers of the trial count where there is no time for others
    assert numbers == {"prompts": 2, "stopped": 0, "most_tokens": stopping.TRIAL}
    assert found.level == "skipped"
    assert check_stopping(opened.model, asked[2:], every)[0].level == "skipped"


def test_prompts_end_where_the_last_answer_begins() -> None:
    two = Example((1, 2, 3, 4, 5, 6), (False, True, False, True, True, True), "r:1", "")
    text = Example((1, 2), (True, True), "r:2", "")
    long = Example((1, *range(300)), (False, *(True,) * 300), "r:3", "")
    assert prompts_of([long, text, two]) == [Prompt((1, 2, 3), 38), Prompt((1,), stopping.MOST)]


def test_singular_values_are_those_of_the_product() -> None:
    generator = torch.Generator().manual_seed(3)
    down, up = (torch.randn(*shape, generator=generator) for shape in ((4, 40), (24, 4)))
    expected = torch.linalg.svdvals(up.double() @ down.double())[:4]
    assert torch.allclose(singular_values(down, up), expected)


@pytest.mark.parametrize("lora", [{"init": "pissa"}, {"dora": True}], ids=["pissa", "dora"])
def test_other_ways_of_lora(tiny_recipe: Callable[..., Path], tmp_path: Path, lora: dict[str, Any]) -> None:
    recipe = load_recipe(tiny_recipe(lora={"dropout": 0.0, **lora}, engine={"audit": "on"}))
    train_recipe(recipe, tmp_path / "run", Silent())
    audit = audit_end(tmp_path / "run", Silent())
    assert [levels(audit)[name] for name in NAMES[:3]] == ["passed"] * 3, audit


@pytest.mark.parametrize(
    "content", [None, [], {}, {"findings": [{"name": 3}]}, {"findings": [], "seconds": "x"}]
)
def test_what_no_audit_writes_is_not_read(content: object) -> None:
    assert read_audit(content) is None
