"""A model folder becomes a GGUF file that says the same; what would not is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_kit.artifacts.adapter import save_adapter
from lora_kit.catalogue import GGUF_ARCHITECTURES
from lora_kit.errors import MachineError, ModelError, RecipeError
from lora_kit.export.exporter import ExportOptions, ExportRequest
from lora_kit.export.gguf import make as make_module
from lora_kit.export.gguf.architecture import can_become_gguf
from lora_kit.export.gguf.check import check_file, compare_weights
from lora_kit.export.gguf.k_quants import K_QUANTS
from lora_kit.export.gguf.make import file_metadata
from lora_kit.export.gguf.plan import full_config, number_type, plan_export
from lora_kit.export.gguf.quantize import NUMBER_TYPES, NumberType
from lora_kit.export.gguf.write import write_gguf
from lora_kit.export.run import export_model, gguf_refusal, refuse_early
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter
from lora_kit.model.base import find_base
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec

FAMILIES = ["llama", "gpt_neox", "bloom", "mpt", "gpt_bigcode", "stablelm", "starcoder2", "qwen2", "qwen3"]
Export = Callable[..., dict[str, Any]]


@pytest.fixture(params=FAMILIES)
def family_folder(request: pytest.FixtureRequest, tiny_folder: Any) -> Path:
    """One tiny model of every architecture that is written."""
    try:
        return tiny_folder(request.param, vocab_size=320)  # some tokenizer classes add a token
    except KeyError:
        pytest.skip(f"there is no tiny {request.param} model yet")


def test_f32_is_exact_through_transformers_own_model(family_folder: Path, export: Export) -> None:
    """Names and row orders are right, or the logits would not be equal to the last bit."""
    report = export(family_folder, quant="f32")
    assert report["weights"]["max_error"] == 0
    assert report["logits"]["max_difference"] == 0
    assert report["logits"]["greedy_agreement"] == 1


@pytest.mark.parametrize("quant", NUMBER_TYPES)
def test_every_type_is_within_its_error_and_smaller_types_make_smaller_files(
    quant: str, tiny_llama: Path, export: Export
) -> None:
    report = export(tiny_llama, quant=quant)
    assert report["weights"]["largest_share_of_bound"] <= 1
    limits = {"f32": 0, "f16": 4e-4, "bf16": 3e-3, "q8_0": 7e-3}
    assert report["weights"]["relative_rms_error"] <= limits.get(quant, 0.12)
    assert report["same_tokens"]["conversations"] == 64


def test_transformers_own_reader_agrees(tiny_llama: Path, export: Export, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report = export(tiny_llama, quant="f32")
    place = {"gguf_file": report["file"], "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "gguf", dtype=torch.float32, **place)
    ours = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    ids = torch.arange(4, 60)[None]
    assert torch.equal(model(ids).logits, ours(ids).logits)
    theirs, tokenizer = (
        AutoTokenizer.from_pretrained(tmp_path / "gguf", **place),
        AutoTokenizer.from_pretrained(tiny_llama),
    )
    text = "the answer is<|im_end|> there\n"
    assert theirs(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert theirs.chat_template == tokenizer.chat_template


@pytest.mark.fault("E5")
def test_the_same_export_gives_the_same_bytes(tiny_neox: Path, source: Any, tmp_path: Path) -> None:
    """E5."""
    for name in ("one", "two"):
        export_model(source(tiny_neox), "gguf", tmp_path / name, ExportOptions("q4_0"))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.fault("E3")
def test_a_file_mode_follows_the_umask(tiny_llama: Path, export: Export, tmp_path: Path) -> None:
    """E3."""
    export(tiny_llama, quant="q8_0", measure_logits=False)
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "gguf").iterdir()} == {"0o644"}


@pytest.mark.fault("E4")
def test_a_full_disk_is_told_before_anything_is_written(
    tiny_llama: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E4."""
    monkeypatch.setattr("lora_kit.artifacts.disk.free_bytes", lambda _: 1000)
    with pytest.raises(MachineError, match="needed"):
        export(tiny_llama)
    assert not list(tmp_path.glob("gguf*"))


@pytest.mark.fault("E1", "C16")
def test_a_damaged_file_is_not_committed(
    tiny_llama: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E1, C16: numbers that differ from the model's are found, and nothing is left."""

    def write_wrongly(path: Path, *rest: Any) -> None:
        write_gguf(path, *rest)
        raw = bytearray(path.read_bytes())
        raw[-40] ^= 0x40
        path.write_bytes(raw)

    monkeypatch.setattr(make_module, "write_gguf", write_wrongly)
    with pytest.raises(ModelError, match="as far from its source as rounding explains"):
        export(tiny_llama, quant="q8_0")
    assert not list(tmp_path.glob("*gguf*"))


@pytest.mark.fault("C16")
def test_a_file_that_would_answer_otherwise_is_not_committed(
    tiny_llama: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C16: even if no number were compared, the file's most likely tokens would give it away."""

    def write_negated(path: Path, architecture: str, metadata: Any, tensors: Any, *rest: Any) -> None:
        negated = [replace(t, kind=_negated(t.kind)) if "ffn_down" in t.name else t for t in tensors]
        write_gguf(path, architecture, metadata, negated, *rest)

    class Unseen:
        def to_json(self) -> dict[str, Any]:
            return {}

    monkeypatch.setattr(make_module, "write_gguf", write_negated)
    monkeypatch.setattr(make_module, "compare_weights", lambda *_: Unseen())
    with pytest.raises(ModelError, match="most likely token is another one"):
        export(tiny_llama, quant="f16")
    assert not list(tmp_path.glob("*gguf*"))


def _negated(kind: NumberType) -> NumberType:
    return replace(kind, pack=lambda values: kind.pack(-values))


def test_two_tensors_that_changed_places_are_found(tiny_llama: Path, source: Any, tmp_path: Path) -> None:
    plan = plan_export(tiny_llama, "f32")
    metadata = file_metadata(source(tiny_llama), plan)
    swapped = list(plan.tensors)
    swapped[-1], swapped[-2] = swapped[-2], swapped[-1]
    path = tmp_path / "x.gguf"
    write_gguf(path, "llama", metadata, swapped)
    header = check_file(path, metadata, plan.tensors)  # the order in the file is free
    assert compare_weights(path, header, plan.tensors).max_error == 0
    with pytest.raises(ModelError, match="missing"):
        check_file(path, metadata, (*plan.tensors, _renamed(plan.tensors[0])))
    with pytest.raises(ModelError, match="not what was to be written"):
        check_file(path, {**metadata, "llama.block_count": 3}, plan.tensors)


def _renamed(tensor: Any) -> Any:
    return replace(tensor, name="blk.9.attn_q.weight")


def test_what_cant_become_gguf_is_told_from_the_config_alone(tiny_llama: Path, tmp_path: Path) -> None:
    assert gguf_refusal(find_base(BaseSpec(model=str(tiny_llama)))) == ""
    config = full_config(tiny_llama)
    yarn = {**config["rope_parameters"], "rope_type": "yarn", "factor": 2.0}
    assert "yarn" in can_become_gguf({**config, "rope_parameters": yarn})
    assert "silu" in can_become_gguf({**config, "hidden_act": "gelu"})
    assert "mamba" in can_become_gguf({"model_type": "mamba"})
    with pytest.raises(ModelError, match=r"can't become GGUF.*safetensors"):
        plan_export(_changed(tiny_llama, tmp_path / "m", hidden_act="gelu"), "f16")


def _changed(folder: Path, to: Path, **config: Any) -> Path:
    shutil.copytree(folder, to)
    written = json.loads((to / "config.json").read_text("utf-8"))
    (to / "config.json").write_text(json.dumps(written | config), encoding="utf-8")
    return to


def test_llama_3_scaling_is_transformers_own(tiny_folder: Any) -> None:
    from transformers import AutoModelForCausalLM

    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    folder = tiny_folder("llama", rope_parameters=rope)
    model = AutoModelForCausalLM.from_pretrained(folder)
    [factors] = [t.values for t in plan_export(folder, "f16").tensors if t.name == "rope_freqs.weight"]
    plain = 1 / 10000.0 ** (np.arange(0, 8, 2) / 8)
    assert np.allclose(plain / factors, model.model.rotary_emb.inv_freq.numpy(), rtol=1e-6)
    assert factors.max() > 1


@pytest.mark.parametrize("quant", ["f16", "q8_0", "q4_0", "q4_1", "q5_1"])
def test_numbers_beyond_float16_are_refused(
    quant: str, tiny_llama: Path, tmp_path: Path, export: Export
) -> None:
    """Blocks keep their scale in float16: an infinite one would make the block's other numbers NaN."""
    folder = tmp_path / "large"
    shutil.copytree(tiny_llama, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e8
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"ffn_up.*beyond the range of float16.*bf16"):
        export(folder, quant=quant)
    assert not list(tmp_path.glob("*gguf*"))
    assert export(folder, quant="bf16", measure_logits=False)["quant"] == "bf16"


@pytest.mark.parametrize(
    ("name", "shape", "quant", "head", "wanted"),
    [
        ("blk.0.attn_q.weight", (64, 64), "q4_0", False, "q4_0"),
        ("token_embd.weight", (64, 64), "q4_0", True, "q8_0"),
        ("token_embd.weight", (64, 64), "q4_0", False, "q4_0"),
        ("blk.0.attn_q.weight", (64, 40), "q4_0", False, "f16"),
        ("blk.0.attn_norm.weight", (64,), "q4_0", False, "f32"),
        ("blk.0.attn_q.bias", (64,), "f16", False, "f32"),
        ("position_embd.weight", (64, 64), "q8_0", False, "f32"),
        ("output.weight", (64, 64), "f16", True, "f16"),
    ],
)
def test_which_tensors_get_which_type(name: str, shape: Any, quant: str, head: bool, wanted: str) -> None:
    assert number_type(name, shape, quant, head=head).name == wanted


def test_unknown_kinds_and_types_are_refused_with_the_known_ones(tiny_llama: Path, export: Export) -> None:
    with pytest.raises(RecipeError, match="no kind of export 'onnx'"):
        export(tiny_llama, "onnx")
    with pytest.raises(RecipeError, match=r"can't write q9.*q4_0"):
        export(tiny_llama, quant="q9")


@pytest.mark.parametrize("quant", K_QUANTS)
def test_k_quants_without_llama_cpp_are_refused_with_the_line_that_installs_it(
    quant: str, tiny_llama: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_kit.export.gguf.k_quants.is_installed", lambda: False)
    for kind in ("gguf", "ollama"):
        with pytest.raises(MachineError, match=r"pip install 'lora-kit\[llama\]'"):
            export(tiny_llama, kind, quant)
        with pytest.raises(MachineError, match=quant):  # before a run is merged
            refuse_early(tmp_path / "no adapter is read yet", ExportRequest(kind, quant))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model_type", GGUF_ARCHITECTURES)
def test_every_mapping_opens_and_has_a_name_that_gguf_knows(model_type: str) -> None:
    from gguf.constants import MODEL_ARCH_NAMES
    from transformers import AutoConfig

    architecture = GGUF_ARCHITECTURES[model_type]
    assert architecture.name in MODEL_ARCH_NAMES.values()
    config = AutoConfig.for_model(model_type, bos_token_id=0, eos_token_id=1).to_dict()
    config |= {"sliding_window": None}
    assert architecture.refusal(config) == ""
    values = architecture.metadata(config)
    assert {"context_length", "embedding_length", "block_count", "feed_forward_length"} <= values.keys()


def test_a_source_without_a_template_still_becomes_gguf(
    tiny_llama: Path, tmp_path: Path, export: Export
) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(tiny_llama, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    report = export(folder, quant="f32")
    assert report["same_tokens"] is None
    assert report["texts"] > 100
    with pytest.raises(ModelError, match="no chat template"):
        export(folder, "ollama")


def test_a_run_on_a_base_without_a_mapping_is_refused_before_it_is_merged(
    tiny_folder: Any, tmp_path: Path
) -> None:
    base = tiny_folder("gemma")
    files = find_base(BaseSpec(model=str(base)))
    model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
    tuned = add_adapter(model, LoraSpec(rank=2), files.family, seed=1)
    config = adapter_config(tuned, str(base))
    save_adapter(tmp_path / "a", tensors=adapter_tensors(tuned), config=config, provenance={}, files={})
    for kind in ("gguf", "ollama"):
        with pytest.raises(ModelError, match=r"no GGUF mapping for 'gemma'"):
            refuse_early(tmp_path / "a", ExportRequest(kind))
    refuse_early(tmp_path / "a", ExportRequest("safetensors"))
