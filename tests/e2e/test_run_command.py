"""`lora-kit run`, whole: what it leaves, what others can do with it, what it says the second time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_kit.assemble import open_target
from lora_kit.cli.app import run
from lora_kit.recipe.shipped import shipped_dir

FinishedRun = Callable[..., Any]
FAMILIES = ["llama", "gpt_neox", "bloom"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("no_sockets")
@pytest.mark.fault("D21", "P10")
def test_everything_is_there_and_loads_elsewhere(
    finished_run: FinishedRun, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, recipe, suite, said = finished_run(family)
    assert "Verdict on bits per byte" in said
    assert "tuned is better than base" in said
    results = json.loads((folder / "evaluations/tiny/results.json").read_text())
    verdicts = {c["metric"]: c for c in results["comparisons"]}
    assert verdicts["bits_per_byte"]["verdict"] == "better"
    assert verdicts["bits_per_byte"]["high"] < 0
    assert (folder / "report.html").stat().st_size > 5000
    assert (folder / "report.md").read_text().startswith("# ")
    assert_others_agree(folder, recipe.parent / "base")
    capsys.readouterr()
    assert run(["run", str(recipe), f"evaluate.suites=[{suite}]", "--run-dir", str(folder)]) == 0
    assert "nothing was done again" in capsys.readouterr().err


def assert_others_agree(folder: Path, base: Path) -> None:
    """peft alone and transformers alone give our logits, within 1e-5, on rows of the training data."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ours = open_target(str(folder))
    alone = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder / "adapter"
    ).eval()
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32).eval()
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    examples = ours.encoder.encode_many(rows(shipped_dir("data") / "lora_guide.jsonl"))
    for example in sorted(examples, key=lambda example: len(example.input_ids))[:8]:
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            expected = ours.model(input_ids=ids).logits
            assert (alone(input_ids=ids).logits - expected).abs().max() < 1e-5
            assert (merged(input_ids=ids).logits - expected).abs().max() < 1e-5
            assert (plain(input_ids=ids).logits - expected).abs().max() > 1e-2


def rows(path: Path) -> list[Any]:
    from lora_kit.catalogue import FORMATS
    from lora_kit.data.sources import read_rows

    return [conversation for row in read_rows(path) for conversation in FORMATS["dolly"].convert(row)]


@pytest.mark.fault("C14")
def test_the_merged_model_is_evaluated_and_not_merged_again(
    finished_run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, suite, _ = finished_run()
    certificate = json.loads((folder / "merged/certificate.json").read_text())
    assert certificate["max_logit_difference"] <= certificate["tolerance"]
    assert certificate["modules"] == 14
    assert run(["merge", str(folder)]) == 4
    assert "there is a merged model already" in capsys.readouterr().err
    (tmp_path / "file").touch()
    for command in (["merge", str(folder), "--force"], ["export", str(folder), "--force"]):
        assert run([*command, "--out", str(tmp_path / "file")]) == 4
        assert "--out: a file, not a folder; name a folder" in capsys.readouterr().err
    assert run(["export", str(folder), "--out", str(tmp_path / "file/x")]) == 5
    assert "choose another place" in capsys.readouterr().err
    assert (
        run(["merge", str(folder), "--out", str(tmp_path / "twice"), "--base", str(folder / "merged")]) == 4
    )
    assert not (tmp_path / "twice").exists()
    assert "trained on base" in capsys.readouterr().err
    assert (
        run(["evaluate", str(folder / "merged"), "--suite", str(suite), "--out", str(tmp_path / "out")]) == 0
    )
    results = json.loads((folder / "evaluations/tiny/results.json").read_text())
    merged = json.loads((tmp_path / "out/results.json").read_text())
    tuned = next(model for model in results["models"] if model["name"] == "tuned")
    both = [m["metrics"]["bits_per_byte"]["value"] for m in (tuned, merged["models"][0])]
    assert both[0] == pytest.approx(both[1], abs=1e-5)


@pytest.mark.fault("C9")
def test_an_adapter_meets_only_its_own_base(
    finished_run: FinishedRun,
    tmp_path: Path,
    tiny_folder: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = finished_run().folder
    other = tiny_folder("llama", seed=1)
    for command in (["merge", str(folder), "--out", str(tmp_path / "m")], ["evaluate", str(folder)]):
        assert run([*command, "--base", str(other)]) == 4
        error = capsys.readouterr().err
        assert error.count("error:") == 1
        assert "trained on base" in error
    assert not (tmp_path / "m").exists()


@pytest.mark.fault("E1", "P6")
def test_a_merge_that_is_off_writes_nothing(
    finished_run: FinishedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lora_kit.export import deltas

    folder = finished_run().folder
    true_scaling = deltas.scaling
    monkeypatch.setattr(deltas, "scaling", lambda *args, **names: 1.01 * true_scaling(*args, **names))
    assert run(["merge", str(folder), "--out", str(tmp_path / "off")]) == 4
    assert "merged logits differ" in capsys.readouterr().err
    assert not (tmp_path / "off").exists()
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.fault("E2")
def test_a_merge_cut_by_a_full_disk_leaves_nothing(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished_run().folder
    monkeypatch.setenv("LORA_KIT_FAILPOINT", "directory.before_manifest=enospc")
    assert run(["merge", str(folder), "--out", str(tmp_path / "full")]) == 5
    assert not (tmp_path / "full").exists()


@pytest.mark.fault("E5")
def test_merging_again_gives_the_same_bytes(finished_run: FinishedRun, tmp_path: Path) -> None:
    folder = finished_run("bloom").folder
    assert run(["merge", str(folder), "--out", str(tmp_path / "again")]) == 0
    first, second = (folder / "merged/model.safetensors", tmp_path / "again/model.safetensors")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.fault("C14", "P6")
def test_a_four_bit_run_merges_into_what_was_trained(finished_run: FinishedRun) -> None:
    folder = finished_run("llama", "quantization.method=nf4").folder
    certificate = json.loads((folder / "merged/certificate.json").read_text())
    assert certificate["base"] == "dequantized"
    assert certificate["max_logit_difference"] < 1e-5
