"""LoRA's variants as whole commands: crash and resume change no bit, and the merge is what was trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit.artifacts.manifest import file_sha256
from lora_kit.cli.app import run
from lora_kit.train.step import Stepper

FOUR_BIT = {"method": "nf4"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pissa": ("llama", {"lora": {"init": "pissa"}}),
    "pissa-bloom": ("bloom", {"lora": {"init": "pissa", "rank_stabilized": True, "dropout": 0.0}}),
    "loftq": ("llama", {"lora": {"init": "loftq"}, "quantization": FOUR_BIT}),
    "dora": ("llama", {"lora": {"dora": True, "dropout": 0.0}}),
    "dora-neox": ("gpt_neox", {"lora": {"dora": True}}),
    "int8": ("llama", {"lora": {"dropout": 0.0}, "quantization": {"method": "int8"}}),
    "int8-neox": ("gpt_neox", {"quantization": {"method": "int8"}}),
    "tokens": ("llama", {"lora": {"train_tokens": ["<|im_end|>", 40], "dropout": 0.0}}),
    "tokens-neox": ("gpt_neox", {"lora": {"train_tokens": ["<|im_end|>"]}}),
    "dora-nf4": ("bloom", {"lora": {"dora": True}, "quantization": FOUR_BIT}),
}


class Crash(BaseException):
    """Nothing catches it, as nothing catches a power cut."""


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_from_recipe_to_merged_model(
    name: str,
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    family, sections = VARIANTS[name]
    if "quantization" in sections:
        pytest.importorskip("bitsandbytes")
    recipe = tiny_recipe(family, train={"steps": 4, "save_every": 1, "weight_decay": 0.1}, **sections)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(["train", str(recipe), "--run-dir", str(whole)]) == 0
    with monkeypatch.context() as patch:
        crash_in_step(3, patch)
        with pytest.raises(Crash):
            run(["train", str(recipe), "--run-dir", str(cut)])
    assert run(["train", str(cut)]) == 0
    file = "adapter/adapter_model.safetensors"
    assert file_sha256(cut / file) == file_sha256(whole / file)
    assert run(["verify", str(whole)]) == 0
    assert run(["merge", str(whole), "--out", str(tmp_path / "merged")]) == 0
    found = json.loads((tmp_path / "merged/certificate.json").read_text("utf-8"))
    assert found["max_logit_difference"] <= 1e-5 * found["max_logit"]
    assert found["base"] == ("dequantized" if "quantization" in sections else "original")
    if "quantization" in sections:
        assert found["original"]["max_logit_difference"] > 10 * found["max_logit_difference"]
        capsys.readouterr()
        code = run(["merge", str(whole), "--base", "original", "--out", str(tmp_path / "original")])
        said = capsys.readouterr().err
        assert code == (4 if name == "loftq" else 0)
        assert ("holds what 4 bits lose" if code else "are not what was trained") in said
        if not code:
            found = json.loads((tmp_path / "original/certificate.json").read_text("utf-8"))
            assert found["base"] == "original"
    if family == "llama":
        capsys.readouterr()
        to = ["--quant", "f32", "--out", str(tmp_path / "gguf")]
        code = run(["export", str(whole), "--adapter-only", *to])
        plain = sections["lora"].keys() <= {"init", "dropout"} and name != "loftq"
        assert code == (0 if plain else 4)
        said = capsys.readouterr()
        if code:
            assert "merge it" in said.err
        else:
            assert ("trained on the base in" in said.out) == ("quantization" in sections)


def crash_in_step(number: int, patch: pytest.MonkeyPatch) -> None:
    true_step, steps = Stepper.step, iter(range(1, number))

    def step(self: Stepper, batches: Any) -> Any:
        if next(steps, None) is None:
            raise Crash
        return true_step(self, batches)

    patch.setattr(Stepper, "step", step)
