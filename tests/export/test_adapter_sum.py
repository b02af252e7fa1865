"""Sums of adapters are exact, equal peft's, and are adapters like any other; what has no sum says why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from lora_kit.artifacts.adapter import read_adapter, save_adapter
from lora_kit.assemble import tokenizer_files
from lora_kit.catalogue import FAMILIES
from lora_kit.cli.app import run
from lora_kit.errors import ModelError
from lora_kit.export.adapter_alike import Part
from lora_kit.export.adapter_sum import rescale_adapter, sum_adapters
from lora_kit.export.deltas import adapter_deltas
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter
from lora_kit.model.base import find_base
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec

Make = Callable[..., Path]


@pytest.fixture
def make(tiny_llama: Path, tmp_path: Path) -> Make:
    """Write an adapter of random numbers on the tiny LLaMA."""

    def write(
        name: str,
        *,
        provenance: dict[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
        without: str = "nothing",
        **settings: Any,
    ) -> Path:
        files = find_base(BaseSpec(model=str(tiny_llama)))
        model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
        spec = LoraSpec(**({"rank": 4, "targets": "all-linear"} | settings))
        peft_model = add_adapter(model, spec, FAMILIES["llama"], seed=0)
        random = torch.Generator().manual_seed(sum(map(ord, name)))
        tensors = {
            key: (torch.randn(t.shape, generator=random) / 12).to(dtype)
            for key, t in adapter_tensors(peft_model).items()
            if not key.endswith(without)
        }
        facts = {
            "base": {"source": str(tiny_llama), "fingerprint": files.fingerprint, "dtype": "float32"},
            "quantization": {"method": "none"},
            "training_fingerprint": name,
        }
        save_adapter(
            tmp_path / name,
            tensors=tensors,
            config=adapter_config(peft_model, str(tiny_llama)),
            provenance=facts | (provenance or {}),
            files=dict(tokenizer_files(tiny_llama)),
        )
        return tmp_path / name

    return write


def part(folder: Path, weight: float = 1.0) -> Part:
    """Open an adapter folder."""
    return Part(folder.name, read_adapter(folder), weight)


def logits(model: Any) -> torch.Tensor:
    """Scores of a row, float64."""
    with torch.no_grad():
        found: torch.Tensor = model.double()(torch.tensor([[3, 5, 8, 13, 21, 34]])).logits
    return found


def test_a_sum_equals_pefts(make: Make, tiny_llama: Path, tmp_path: Path) -> None:
    one, other = make("one", alpha=8), make("other", rank=2, alpha=6, rank_stabilized=True)
    made = sum_adapters([part(one, 0.5), part(other, -1.5)], tmp_path / "sum")
    assert (made.rank, made.alpha) == (6, 6.0)
    assert made.largest_difference < 1e-6
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float64)
    plain = logits(base)
    theirs = PeftModel.from_pretrained(base, str(one), adapter_name="one")
    theirs.load_adapter(str(other), "other")
    theirs.add_weighted_adapter(["one", "other"], [0.5, -1.5], "mixed", combination_type="cat")
    theirs.set_adapter("mixed")
    wanted = logits(theirs)
    again = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float64)
    ours = logits(PeftModel.from_pretrained(again, str(tmp_path / "sum")))
    assert float((wanted - plain).abs().max()) > 0.01
    assert torch.allclose(ours, wanted, rtol=0, atol=1e-5)


def test_layers_that_only_one_has_are_there(make: Make, tmp_path: Path) -> None:
    one, other = make("one", targets=["q_proj", "up_proj"]), make("other", targets=["v_proj", "up_proj"])
    sum_adapters([part(one, 2.0), part(other)], tmp_path / "sum")
    found = {name: update() for name, update in adapter_deltas(read_adapter(tmp_path / "sum")).items()}
    wanted: dict[str, Any] = {}
    for folder, weight in ((one, 2.0), (other, 1.0)):
        for name, update in adapter_deltas(read_adapter(folder)).items():
            wanted[name] = wanted.get(name, 0.0) + weight * update()
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in wanted)


def test_an_adapter_less_itself_is_nothing(make: Make, tmp_path: Path) -> None:
    folder = make("one")
    sum_adapters([part(folder), part(folder, -1.0)], tmp_path / "none")
    updates = adapter_deltas(read_adapter(tmp_path / "none")).values()
    assert all(float(update().abs().max()) < 1e-6 for update in updates)


@pytest.mark.parametrize(("alpha", "stabilized"), [(None, False), (None, True), (32.0, False), (3.0, True)])
def test_another_alpha_adds_the_same(
    make: Make,
    tmp_path: Path,
    alpha: float | None,
    stabilized: bool,
) -> None:
    folder = make("one", alpha=8)
    made = rescale_adapter(read_adapter(folder), tmp_path / "new", alpha=alpha, rank_stabilized=stabilized)
    assert made.alpha == (alpha or (2.0 if stabilized else 4.0))
    before, after = (adapter_deltas(read_adapter(each)) for each in (folder, tmp_path / "new"))
    for name, update in before.items():
        same = torch.equal if alpha is None else torch.allclose  # a power of two loses nothing
        assert same(update(), after[name]())


def test_half_precision_keeps_what_another_alpha_makes_of_it(make: Make, tmp_path: Path) -> None:
    folder = make("one", dtype=torch.bfloat16)
    assert rescale_adapter(read_adapter(folder), tmp_path / "new", alpha=10).largest_difference < 1e-6


def test_a_matrix_that_is_missing_takes_one_line(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("one", without="q_proj.lora_B.weight")
    for words in (["inspect", str(folder)], ["sum", str(folder), "--out", str(tmp_path / "new")]):
        assert run(["adapters", *words]) == 4
        assert "2 layers have no pair of matrices of rank 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"provenance": {"base": {"fingerprint": "f" * 64, "dtype": "float32"}}}, "its base fingerprint is"),
        ({"provenance": {"quantization": {"method": "nf4"}}}, "its quantization method is nf4"),
        ({"provenance": {"init": "loftq"}}, "LoftQ"),
        ({"dora": True}, "DoRA"),
    ],
)
def test_what_has_no_sum_is_refused(make: Make, tmp_path: Path, settings: dict[str, Any], found: str) -> None:
    one, other = make("one"), make("other", **settings)
    with pytest.raises(ModelError, match=found):
        sum_adapters([part(one), part(other)], tmp_path / "sum")
    assert not (tmp_path / "sum").exists()


def test_commands(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = make("one"), make("other", provenance={"system": "Be brief."})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/adapter_config.json").write_text("{")
    out = str(tmp_path / "sum")
    assert run(["adapters", "sum", f"{one}=0.5", str(other), "--out", out, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["notes"] == [
        "other was trained with another template or system prompt; the sum has those of one"
    ]
    assert json.loads((tmp_path / "sum/lora_kit.json").read_text())["made_of"][0]["weight"] == 0.5
    assert "0.5 x one" in (tmp_path / "sum/README.md").read_text()
    assert run(["adapters", "subtract", str(one), str(other), "--out", str(tmp_path / "less")]) == 0
    assert run(["adapters", "rescale", str(one), "--out", str(tmp_path / "scaled"), "--alpha", "16"]) == 0
    assert "alpha 16" in capsys.readouterr().out
    assert run(["adapters", "list", "--dir", str(tmp_path), "--json"]) == 0
    found = {facts["name"]: facts for facts in json.loads(capsys.readouterr().out)}
    assert found.keys() == {"one", "other", "broken", "sum", "less", "scaled"}
    assert found["broken"]["problem"]
    assert found["less"]["rank"] == 8
    assert run(["adapters", "list", "--dir", str(tmp_path)]) == 0
    assert run(["adapters", "inspect", out]) == 0
    assert "effective rank" in capsys.readouterr().out
    assert run(["adapters", "inspect", out, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["layers"]) == 14
    assert run(["merge", out, "--out", str(tmp_path / "merged")]) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sum", "{one}=x", "--out", "new"], "'x' is no number"),
        (["sum", "{one}=0", "--out", "new"], "0.0 is no weight"),
        (["sum", "{one}", "--out", "{one}"], "is there already"),
        (["sum", "nowhere", "--out", "new"], "no such adapter folder"),
        (["rescale", "{one}", "--out", "new", "--alpha", "-1"], "-1.0 is not positive"),
        (["inspect", "nowhere"], "no such adapter folder"),
    ],
)
def test_mistakes_take_one_line(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    one = make("one")
    assert run(["adapters", *(word.format(one=one) for word in words)]) in {2, 3, 4}
    said = capsys.readouterr().err.strip()
    assert line in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "new").exists()
